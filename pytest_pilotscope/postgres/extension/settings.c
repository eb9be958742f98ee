/*
 * settings.c: the pilotscope.* settings.
 *
 * Everything is parsed when it is SET, so that a mistake is an error there and not at some later planning. What comes
 * out is one block of memory that the settings machinery keeps and frees along with the value ("extra").
 */
#include "pilotscope.h"

#include <math.h>

#include "access/parallel.h"
#include "common/jsonapi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

#define MAX_TREE_RELATIONS 1000
#define MAX_ROWS 1e100			/* what the planner itself clamps to */

const char *const ps_method_names[PS_METHODS] = {
	[PS_ANY] = "any",
	[PS_NESTLOOP] = "nestloop",
	[PS_MERGEJOIN] = "mergejoin",
	[PS_HASHJOIN] = "hashjoin",
	[PS_SEQSCAN] = "seqscan",
	[PS_INDEXSCAN] = "indexscan",
	[PS_INDEXONLYSCAN] = "indexonlyscan",
	[PS_BITMAPSCAN] = "bitmapscan",
	[PS_TIDSCAN] = "tidscan",
};

bool		ps_enumerate = false;
bool		ps_enumerate_sql = false;
PsKeys	   *ps_cardinalities = NULL;
PsKeys	   *ps_methods = NULL;
PsTrees    *ps_join_order = NULL;
PsKeys	   *ps_hidden_indexes = NULL;

static char *cardinalities_text;
static char *methods_text;
static char *join_order_text;
static char *hidden_indexes_text;
static char *subplans_text;
static char *timing_text;

/* A text that is being read, and the first thing that is wrong with it. */
typedef struct Reader
{
	const char *at;
	char	   *error;
} Reader;

/* Keep the first error only: later ones tend to follow from it. */
#define complain(error_field, ...) \
	do { \
		if ((error_field) == NULL) \
			(error_field) = psprintf(__VA_ARGS__); \
	} while (0)

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void
skip_blanks(Reader *reader)
{
	while (is_blank(*reader->at))
		reader->at++;
}

/* "N:" in front of aliases, or 0. */
static int
read_level(Reader *reader)
{
	const char *at = reader->at;
	long		level = 0;

	while (*at >= '0' && *at <= '9' && level < 1000000)
		level = level * 10 + (*at++ - '0');
	if (at == reader->at || *at != ':')
		return 0;
	if (level == 0 || level >= 1000000)
		complain(reader->error, "levels are numbered from 1");
	reader->at = at + 1;
	return (int) level;
}

/* A name up to a delimiter, or in double quotes, where a double quote is written twice. NULL after an error. */
static char *
read_name(Reader *reader, const char *delimiters)
{
	StringInfoData name;

	initStringInfo(&name);
	if (*reader->at != '"')
	{
		while (*reader->at && !is_blank(*reader->at) && !strchr(delimiters, *reader->at))
			appendStringInfoChar(&name, *reader->at++);
	}
	else
	{
		for (reader->at++; *reader->at && !(*reader->at == '"' && reader->at[1] != '"'); reader->at++)
		{
			if (*reader->at == '"')
				reader->at++;
			appendStringInfoChar(&name, *reader->at);
		}
		if (*reader->at == '\0')
			complain(reader->error, "a double quote is not closed");
		else
			reader->at++;
	}
	if (name.len == 0)
		complain(reader->error, *reader->at ? "a name is expected at \"%.20s\"" : "a name is expected at the end%s", reader->at);
	return reader->error ? NULL : name.data;
}

/* "[N:]alias alias ...". The aliases are given as a list. */
static List *
read_key(Reader *reader, int *level)
{
	List	   *aliases = NIL;

	skip_blanks(reader);
	*level = read_level(reader);
	skip_blanks(reader);
	do
	{
		char	   *alias = read_name(reader, "\",:|");

		if (alias == NULL)
			return NIL;
		aliases = lappend(aliases, alias);
		if (*reader->at && !is_blank(*reader->at))
			complain(reader->error, "aliases are separated by blanks, found \"%.20s\"", reader->at);
		skip_blanks(reader);
	} while (*reader->at && reader->error == NULL);
	return aliases;
}

/* A JSON object that is being read: {"a b": value}. */
typedef struct Members
{
	bool		are_methods;
	int			depth;
	List	   *keys;			/* of PsKey, aliases in names */
	List	   *names;			/* of List of char * */
	PsKey	   *current;
	char	   *error;
} Members;

/* Up to 15, the parser of JSON cannot be told to stop. */
#if PG_VERSION_NUM >= 160000
typedef JsonParseErrorType JsonResult;
#define JSON_GO_ON(members) return (members)->error ? JSON_SEM_ACTION_FAILED : JSON_SUCCESS
#else
typedef void JsonResult;
#define JSON_GO_ON(members) return
#endif

static JsonResult
on_object_start(void *state)
{
	Members    *members = state;

	if (members->depth++ > 0)
		complain(members->error, "objects cannot be nested");
	JSON_GO_ON(members);
}

static JsonResult
on_array_start(void *state)
{
	Members    *members = state;

	complain(members->error, "an array is not expected here");
	JSON_GO_ON(members);
}

static JsonResult
on_member(void *state, char *name, bool is_null)
{
	Members    *members = state;
	Reader		reader = {.at = name};
	PsKey	   *key = palloc0(sizeof(PsKey));

	(void) is_null;				/* the value says so */
	if (members->error == NULL)
	{
		members->names = lappend(members->names, read_key(&reader, &key->level));
		members->keys = lappend(members->keys, key);
		members->current = key;
		if (reader.error)
			complain(members->error, "key \"%.100s\": %s", name, reader.error);
	}
	JSON_GO_ON(members);
}

static void
read_rows(Members *members, const char *value, JsonTokenType type)
{
	double		rows = type == JSON_TOKEN_NUMBER ? strtod(value, NULL) : NAN;

	if (!(rows >= 0 && rows <= MAX_ROWS))
		complain(members->error, "rows must be a number from 0 to 1e100, not %.100s", value);
	members->current->rows = rows;
}

static void
read_method(Members *members, const char *value, JsonTokenType type)
{
	for (int i = PS_ANY + 1; i < PS_METHODS && type == JSON_TOKEN_STRING; i++)
		if (strcmp(value, ps_method_names[i]) == 0)
			members->current->method = (PsMethod) i;
	if (members->current->method == PS_ANY)
		complain(members->error, "a method must be one of nestloop, mergejoin, hashjoin, seqscan, indexscan, indexonlyscan, "
				 "bitmapscan or tidscan, not %.100s", value);
	else if (ps_is_join_method(members->current->method) != (list_length(llast(members->names)) > 1))
		complain(members->error, "%s does not fit the number of relations in its key", value);
}

static JsonResult
on_scalar(void *state, char *value, JsonTokenType type)
{
	Members    *members = state;

	if (members->depth != 1 || members->current == NULL)
		complain(members->error, "an object is expected");
	if (members->error == NULL)
		(members->are_methods ? read_method : read_rows) (members, value, type);
	JSON_GO_ON(members);
}

static void
read_members(Members *members, char *text)
{
	JsonSemAction actions = {0};
	JsonLexContext *lexer;
	JsonParseErrorType result;

#if PG_VERSION_NUM >= 170000
	lexer = makeJsonLexContextCstringLen(NULL, text, strlen(text), GetDatabaseEncoding(), true);
#else
	lexer = makeJsonLexContextCstringLen(text, (int) strlen(text), GetDatabaseEncoding(), true);
#endif
	actions.semstate = members;
	actions.object_start = on_object_start;
	actions.array_start = on_array_start;
	actions.object_field_start = on_member;
	actions.scalar = on_scalar;
	result = pg_parse_json(lexer, &actions);
	if (result != JSON_SUCCESS && members->error == NULL)
		members->error = json_errdetail(result, lexer);
}

/* Memory that the settings machinery can free. */
static void *
lasting_memory(Size size)
{
#if PG_VERSION_NUM >= 160000
	return guc_malloc(LOG, size);
#else
	return malloc(size);
#endif
}

/* Keys and the lists of their aliases, as one block. */
static PsKeys *
pack_keys(List *keys, List *names)
{
	Size		size = sizeof(PsKeys) + sizeof(PsKey) * list_length(keys);
	PsKeys	   *packed;
	char	  **alias;
	char	   *text;
	ListCell   *cell;
	ListCell   *name;

	foreach(cell, names)
		foreach(name, (List *) lfirst(cell))
			size += sizeof(char *) + strlen(lfirst(name)) + 1;
	packed = lasting_memory(size);
	if (packed == NULL)
		return NULL;
	packed->count = list_length(keys);
	packed->keys = (PsKey *) (packed + 1);
	alias = (char **) (packed->keys + packed->count);
	foreach(cell, names)
		alias += list_length(lfirst(cell));
	text = (char *) alias;		/* the texts lie behind all pointers to them */
	alias = (char **) (packed->keys + packed->count);
	for (int i = 0; i < packed->count; i++)
	{
		packed->keys[i] = *(PsKey *) list_nth(keys, i);
		packed->keys[i].aliases = alias;
		packed->keys[i].count = list_length(list_nth(names, i));
		foreach(name, (List *) list_nth(names, i))
		{
			*alias++ = strcpy(text, lfirst(name));
			text += strlen(text) + 1;
		}
	}
	return packed;
}

static PsKeys *
parse_members(char *text, char **error, bool are_methods)
{
	Members		members = {.are_methods = are_methods};

	read_members(&members, text);
	*error = members.error;
	return *error ? NULL : pack_keys(members.keys, members.names);
}

static void *
parse_cardinalities(char *text, char **error)
{
	return parse_members(text, error, false);
}

static void *
parse_methods(char *text, char **error)
{
	return parse_members(text, error, true);
}

/* Names of indexes, separated by commas. */
static void *
parse_hidden_indexes(char *text, char **error)
{
	Reader		reader = {.at = text};
	List	   *keys = NIL;
	List	   *names = NIL;

	for (;;)
	{
		char	   *name;

		skip_blanks(&reader);
		name = read_name(&reader, "\",");
		skip_blanks(&reader);
		if (name && *reader.at && *reader.at != ',')
			complain(reader.error, "names are separated by commas, found \"%.20s\"", reader.at);
		*error = reader.error;
		if (*error)
			return NULL;
		keys = lappend(keys, palloc0(sizeof(PsKey)));
		names = lappend(names, list_make1(name));
		if (*reader.at++ == '\0')
			return pack_keys(keys, names);
	}
}

/* The trees of a join order, while they are read. */
typedef struct Forest
{
	Reader		reader;
	PsNode		nodes[2 * MAX_TREE_RELATIONS];
	PsTree		trees[MAX_TREE_RELATIONS];
	int			node_count;
	int			tree_count;
} Forest;

static void
reject_repeated_alias(Forest *forest, int from, const char *alias)
{
	for (int i = from; i < forest->node_count; i++)
		if (forest->nodes[i].alias && strcmp(forest->nodes[i].alias, alias) == 0)
			complain(forest->reader.error, "\"%s\" occurs twice in one tree", alias);
}

/* "(outer inner)" or an alias. Gives the node's index, or -1 after an error. */
static int
read_tree(Forest *forest, int from)
{
	Reader	   *reader = &forest->reader;
	PsNode		node = {NULL, -1, -1};

	check_stack_depth();
	skip_blanks(reader);
	if (*reader->at == '(')
	{
		reader->at++;
		node.outer = read_tree(forest, from);
		node.inner = node.outer < 0 ? -1 : read_tree(forest, from);
		skip_blanks(reader);
		if (reader->error == NULL && *reader->at != ')')
			complain(reader->error, "a join has two sides and a closing parenthesis, found \"%.20s\"", reader->at);
		else if (reader->error == NULL)
			reader->at++;
	}
	else
	{
		node.alias = read_name(reader, "\"():,|");
		if (node.alias)
			reject_repeated_alias(forest, from, node.alias);
	}
	if (forest->node_count == lengthof(forest->nodes))
		complain(reader->error, "there are more than %d relations", MAX_TREE_RELATIONS);
	if (reader->error)
		return -1;
	forest->nodes[forest->node_count] = node;
	return forest->node_count++;
}

/* The trees, as one block. */
static PsTrees *
pack_trees(const Forest *forest)
{
	Size		nodes_size = sizeof(PsNode) * forest->node_count;
	Size		trees_size = sizeof(PsTree) * forest->tree_count;
	Size		text_size = 0;
	PsTrees    *packed;
	char	   *text;

	for (int i = 0; i < forest->node_count; i++)
		text_size += forest->nodes[i].alias ? strlen(forest->nodes[i].alias) + 1 : 0;
	packed = lasting_memory(sizeof(PsTrees) + nodes_size + trees_size + text_size);
	if (packed == NULL)
		return NULL;
	packed->count = forest->tree_count;
	packed->nodes = memcpy(packed + 1, forest->nodes, nodes_size);
	packed->trees = memcpy((char *) packed->nodes + nodes_size, forest->trees, trees_size);
	text = (char *) packed->trees + trees_size;
	for (int i = 0; i < forest->node_count; i++)
	{
		if (packed->nodes[i].alias == NULL)
			continue;
		packed->nodes[i].alias = strcpy(text, forest->nodes[i].alias);
		text += strlen(text) + 1;
	}
	return packed;
}

/* "[N:](tree) ...": one tree, or several for different levels or parts of a query. */
static void *
parse_join_order(char *text, char **error)
{
	Forest	   *forest = palloc0(sizeof(Forest));

	forest->reader.at = text;
	do
	{
		PsTree		tree;

		skip_blanks(&forest->reader);
		tree.level = read_level(&forest->reader);
		if (*forest->reader.at != '(')
			complain(forest->reader.error, "a tree starts with a parenthesis, found \"%.20s\"", forest->reader.at);
		else
			tree.root = read_tree(forest, forest->node_count);
		skip_blanks(&forest->reader);
		*error = forest->reader.error;
		if (*error)
			return NULL;
		forest->trees[forest->tree_count++] = tree; /* each has two relations, so they are never too many */
	} while (*forest->reader.at);
	return pack_trees(forest);
}

static bool
is_empty(const char *text)
{
	return text == NULL || text[strspn(text, " \t\r\n")] == '\0';
}

typedef void *(*Parser) (char *text, char **error);

/*
 * Parallel workers get every setting sent but plan nothing, so they do not parse. Errors are copied out of the memory
 * used for parsing, which goes away.
 */
static bool
check(const char *text, void **extra, Parser parse)
{
	MemoryContext before;
	MemoryContext memory;
	char	   *error = NULL;

	*extra = NULL;
	if (InitializingParallelWorker || is_empty(text))
		return true;
	memory = AllocSetContextCreate(CurrentMemoryContext, "pilotscope setting", ALLOCSET_DEFAULT_SIZES);
	before = MemoryContextSwitchTo(memory);
	*extra = parse(pstrdup(text), &error);
	MemoryContextSwitchTo(before);
	if (error)
		GUC_check_errdetail("%s", error);
	MemoryContextDelete(memory);
	return *extra != NULL;
}

#define DEFINE_CHECK(name) \
static bool \
check_##name(char **value, void **extra, GucSource source) \
{ \
	(void) source; \
	return check(*value, extra, parse_##name); \
} \
static void \
assign_##name(const char *value, void *extra) \
{ \
	forget_plans(value, name##_text); \
	ps_##name = extra; \
}

/* Plans of prepared statements were made under the old value. */
static void
forget_plans(const char *value, const char *old)
{
	if (!IsParallelWorker() && !InitializingParallelWorker && strcmp(value ? value : "", old ? old : "") != 0)
		ResetPlanCache();
}

DEFINE_CHECK(cardinalities)
DEFINE_CHECK(methods)
DEFINE_CHECK(join_order)
DEFINE_CHECK(hidden_indexes)

static void
define_text(const char *name, const char *description, char **variable,
			GucStringCheckHook check_hook, GucStringAssignHook assign_hook)
{
	DefineCustomStringVariable(name, description, NULL, variable, "", PGC_USERSET, GUC_NOT_IN_SAMPLE,
							   check_hook, assign_hook, NULL);
}

static void
define_switch(const char *name, const char *description, bool *variable)
{
	DefineCustomBoolVariable(name, description, NULL, variable, false, PGC_USERSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
}

static void
define_result(const char *name, const char *description, char **variable, GucShowHook show_hook)
{
	DefineCustomStringVariable(name, description, NULL, variable, "", PGC_INTERNAL,
							   GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, show_hook);
}

void
ps_define_settings(void)
{
	define_text("pilotscope.cardinalities", "Rows of sets of relations: {\"a b\": 10, \"2:x\": 7}.", &cardinalities_text,
				check_cardinalities, assign_cardinalities);
	define_text("pilotscope.methods", "Methods of joins and scans: {\"a b\": \"hashjoin\", \"a\": \"indexscan\"}.", &methods_text,
				check_methods, assign_methods);
	define_text("pilotscope.join_order", "Join trees, outer side first: ((a b) c).", &join_order_text,
				check_join_order, assign_join_order);
	define_text("pilotscope.hidden_indexes", "Indexes that the planner is not to see, separated by commas.",
				&hidden_indexes_text, check_hidden_indexes, assign_hidden_indexes);
	define_switch("pilotscope.enumerate", "Note the sets of relations that the planner considers.", &ps_enumerate);
	define_switch("pilotscope.enumerate_sql", "Note also the SQL that counts the rows of each set.", &ps_enumerate_sql);
	define_result("pilotscope.subplans", "The sets of relations considered for the last planned statement, as JSON.",
				  &subplans_text, ps_show_report);
	define_result("pilotscope.timing", "Planning and execution time of the last top-level statement, as JSON.",
				  &timing_text, ps_show_timing);
#if PG_VERSION_NUM >= 150000
	MarkGUCPrefixReserved("pilotscope");
#else
	EmitWarningsOnPlaceholders("pilotscope");
#endif
}

void		_PG_init(void);

void
_PG_init(void)
{
	ps_define_settings();
	ps_install_state();
	ps_install_base();
	ps_install_joins();
	ps_install_hints();
}
