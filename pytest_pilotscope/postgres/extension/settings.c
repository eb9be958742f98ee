/*
 * settings.c: the pilotscope.* settings.
 *
 * A value is parsed when it is SET, so that a mistake is an error there and not at some later planning, and once more when it
 * is first needed, into memory that lasts until it is changed.
 */
#include "pilotscope.h"

#include <math.h>

#include "access/parallel.h"
#include "common/jsonapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/plancache.h"

#define MAX_TREE_RELATIONS 1000
#define MAX_ROWS 1e100 /* the planner itself clamps to this */
#define METHOD_LIST "nestloop, mergejoin, hashjoin, seqscan, indexscan, indexonlyscan, bitmapscan or tidscan"

static const char *const method_names[PS_METHODS] = {
    "any", "nestloop", "mergejoin", "hashjoin", "seqscan", "indexscan", "indexonlyscan", "bitmapscan", "tidscan",
};

bool ps_enumerate = false;
bool ps_enumerate_sql = false;
bool ps_ignore_statistics = false;
List *ps_cardinalities = NIL;
List *ps_methods = NIL;
List *ps_join_order = NIL;
List *ps_hidden_indexes = NIL;

/* A text that is being read, and its first mistake. */
typedef struct Reader {
    const char *at;
    char *error;
} Reader;

/* Keep the first error only: later ones tend to follow from it. */
#define complain(reader, ...)                                                                                                    \
    do {                                                                                                                         \
        if ((reader)->error == NULL)                                                                                             \
            (reader)->error = psprintf(__VA_ARGS__);                                                                             \
    } while (0)

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_blanks(Reader *reader) {
    while (is_blank(*reader->at))
        reader->at++;
}

/* "N:" in front of aliases, or 0. */
static int read_level(Reader *reader) {
    const char *at = reader->at;
    int level = 0;

    while (*at >= '0' && *at <= '9' && level < 100000)
        level = level * 10 + (*at++ - '0');
    if (at == reader->at || *at != ':')
        return 0;
    if (level == 0)
        complain(reader, "levels are numbered from 1");
    reader->at = at + 1;
    return level;
}

/* A name up to a delimiter, or in double quotes, where a double quote is written twice. NULL after an error. */
static char *read_name(Reader *reader, const char *delimiters) {
    StringInfoData name;

    initStringInfo(&name);
    if (*reader->at != '"') {
        while (*reader->at && !is_blank(*reader->at) && !strchr(delimiters, *reader->at))
            appendStringInfoChar(&name, *reader->at++);
    } else {
        for (reader->at++; *reader->at && !(*reader->at == '"' && reader->at[1] != '"'); reader->at++) {
            if (*reader->at == '"')
                reader->at++;
            appendStringInfoChar(&name, *reader->at);
        }
        if (*reader->at == '\0')
            complain(reader, "a double quote is not closed");
        else
            reader->at++;
    }
    if (name.len == 0)
        complain(reader, "a name is expected, found \"%.20s\"", reader->at);
    return reader->error ? NULL : name.data;
}

/* "[N:]alias alias ..." */
static PsKey *read_key(Reader *reader) {
    PsKey *key = palloc0(sizeof(PsKey));

    skip_blanks(reader);
    key->level = read_level(reader);
    skip_blanks(reader);
    do {
        key->aliases = lappend(key->aliases, read_name(reader, "\",:|"));
        if (*reader->at && !is_blank(*reader->at))
            complain(reader, "aliases are separated by blanks, found \"%.20s\"", reader->at);
        skip_blanks(reader);
    } while (*reader->at && reader->error == NULL);
    return key;
}

/* A JSON object that is being read: {"a b": value}. */
typedef struct Object {
    bool of_methods;
    int depth;
    List *keys;
    char *error;
} Object;

/* Up to 15, the parser of JSON cannot be told to stop. */
#if PG_VERSION_NUM >= 160000
typedef JsonParseErrorType JsonResult;
#define GO_ON(object) return (object)->error ? JSON_SEM_ACTION_FAILED : JSON_SUCCESS
#else
typedef void JsonResult;
#define GO_ON(object) return
#endif

static JsonResult on_object(void *state) {
    Object *object = state;

    if (object->depth++ > 0)
        complain(object, "objects cannot be nested");
    GO_ON(object);
}

static JsonResult on_array(void *state) {
    Object *object = state;

    complain(object, "an array is not expected here");
    GO_ON(object);
}

static JsonResult on_member(void *state, char *name, bool is_null) {
    Object *object = state;
    Reader reader = {.at = name};

    (void)is_null; /* the value says so */
    if (object->error == NULL) {
        object->keys = lappend(object->keys, read_key(&reader));
        if (reader.error)
            complain(object, "key \"%.100s\": %s", name, reader.error);
    }
    GO_ON(object);
}

static void read_rows(Object *object, PsKey *key, const char *value, JsonTokenType type) {
    key->rows = type == JSON_TOKEN_NUMBER ? strtod(value, NULL) : NAN;
    if (!(key->rows >= 0 && key->rows <= MAX_ROWS))
        complain(object, "rows must be a number from 0 to 1e100, not %.100s", value);
}

static void read_method(Object *object, PsKey *key, const char *value, JsonTokenType type) {
    for (int i = PS_ANY + 1; i < PS_METHODS && type == JSON_TOKEN_STRING; i++)
        if (strcmp(value, method_names[i]) == 0)
            key->method = (PsMethod)i;
    if (key->method == PS_ANY)
        complain(object, "a method must be one of " METHOD_LIST ", not %.100s", value);
    else if (ps_is_join_method(key->method) != (list_length(key->aliases) > 1))
        complain(object, "%s does not fit the number of relations in its key", value);
}

static JsonResult on_scalar(void *state, char *value, JsonTokenType type) {
    Object *object = state;

    if (object->depth != 1)
        complain(object, "an object is expected");
    if (object->error == NULL)
        (object->of_methods ? read_method : read_rows)(object, llast(object->keys), value, type);
    GO_ON(object);
}

static List *parse_object(const char *text, char **error, bool of_methods) {
    Object object = {.of_methods = of_methods};
    JsonSemAction actions = {.semstate = &object,
                             .object_start = on_object,
                             .array_start = on_array,
                             .object_field_start = on_member,
                             .scalar = on_scalar};
    char *copy = pstrdup(text);
    JsonLexContext *lexer;
    JsonParseErrorType result;

#if PG_VERSION_NUM >= 170000
    lexer = makeJsonLexContextCstringLen(NULL, copy, strlen(copy), GetDatabaseEncoding(), true);
#else
    lexer = makeJsonLexContextCstringLen(copy, (int)strlen(copy), GetDatabaseEncoding(), true);
#endif
    result = pg_parse_json(lexer, &actions);
    *error = object.error || result == JSON_SUCCESS ? object.error : json_errdetail(result, lexer);
    return object.keys;
}

static List *parse_cardinalities(const char *text, char **error) {
    return parse_object(text, error, false);
}

static List *parse_methods(const char *text, char **error) {
    return parse_object(text, error, true);
}

/* Names of indexes, separated by commas. */
static List *parse_hidden_indexes(const char *text, char **error) {
    Reader reader = {.at = text};
    List *names = NIL;

    do {
        if (names)
            reader.at++; /* the comma */
        skip_blanks(&reader);
        names = lappend(names, read_name(&reader, "\","));
        skip_blanks(&reader);
        if (*reader.at && *reader.at != ',')
            complain(&reader, "names are separated by commas, found \"%.20s\"", reader.at);
    } while (*reader.at && reader.error == NULL);
    *error = reader.error;
    return names;
}

/* "(outer inner)", "(member member member ...)" or an alias. The aliases are added to those of the tree. NULL after an error. */
static PsNode *read_node(Reader *reader, List **aliases) {
    PsNode *node = palloc0(sizeof(PsNode));
    ListCell *cell;

    check_stack_depth();
    skip_blanks(reader);
    if (*reader->at != '(') {
        node->alias = read_name(reader, "\"():,|");
        foreach (cell, *aliases)
            if (node->alias && strcmp(lfirst(cell), node->alias) == 0)
                complain(reader, "\"%s\" occurs twice in one tree", node->alias);
        *aliases = lappend(*aliases, node->alias);
        if (list_length(*aliases) > MAX_TREE_RELATIONS)
            complain(reader, "there are more than %d relations", MAX_TREE_RELATIONS);
        return reader->error ? NULL : node;
    }
    reader->at++;
    do {
        node->children = lappend(node->children, read_node(reader, aliases));
        skip_blanks(reader);
    } while (reader->error == NULL && *reader->at && (*reader->at != ')' || list_length(node->children) < 2));
    if (*reader->at != ')')
        complain(reader, "a join has two sides or more and a closing parenthesis, found \"%.20s\"", reader->at);
    else
        reader->at++;
    return reader->error ? NULL : node;
}

/* "[N:](tree) ...": one tree, or several for different levels or parts of a query. */
static List *parse_join_order(const char *text, char **error) {
    Reader reader = {.at = text};
    List *trees = NIL;

    do {
        PsTree *tree = palloc0(sizeof(PsTree));
        List *aliases = NIL;

        skip_blanks(&reader);
        tree->level = read_level(&reader);
        if (*reader.at != '(')
            complain(&reader, "a tree starts with a parenthesis, found \"%.20s\"", reader.at);
        tree->root = read_node(&reader, &aliases);
        trees = lappend(trees, tree);
        skip_blanks(&reader);
    } while (*reader.at && reader.error == NULL);
    *error = reader.error;
    return trees;
}

/* A setting whose value is parsed. */
typedef struct Parsed {
    const char *name;
    const char *description;
    List *(*parse)(const char *text, char **error);
    GucStringCheckHook check;
    GucStringAssignHook assign;
    List **result;
    char *text;
    bool stale; /* the result is that of an older text */
    MemoryContext memory;
} Parsed;

static bool is_empty(const char *text) {
    return text == NULL || text[strspn(text, " \t\r\n")] == '\0';
}

/* Parallel workers get every setting sent but plan nothing. The error is copied out of the memory that was used. */
static bool check(const Parsed *setting, const char *text) {
    MemoryContext before, memory;
    char *error = NULL;

    if (InitializingParallelWorker || is_empty(text))
        return true;
    memory = AllocSetContextCreate(CurrentMemoryContext, "pilotscope setting", ALLOCSET_DEFAULT_SIZES);
    before = MemoryContextSwitchTo(memory);
    setting->parse(text, &error);
    MemoryContextSwitchTo(before);
    if (error)
        GUC_check_errdetail("%s", error);
    MemoryContextDelete(memory);
    return error == NULL;
}

/* Plans of prepared statements were made under the old value. */
static void assign(Parsed *setting, const char *text) {
    setting->stale = true;
    if (!IsParallelWorker() && strcmp(text ? text : "", setting->text ? setting->text : "") != 0)
        ResetPlanCache();
}

static Parsed parsed[4];

#define DEFINE_HOOKS(index, name)                                                                                                \
    static bool check_##name(char **value, void **extra, GucSource source) {                                                     \
        (void)extra;                                                                                                             \
        (void)source;                                                                                                            \
        return check(&parsed[index], *value);                                                                                    \
    }                                                                                                                            \
    static void assign_##name(const char *value, void *extra) {                                                                  \
        (void)extra;                                                                                                             \
        assign(&parsed[index], value);                                                                                           \
    }

DEFINE_HOOKS(0, cardinalities)
DEFINE_HOOKS(1, methods)
DEFINE_HOOKS(2, join_order)
DEFINE_HOOKS(3, hidden_indexes)

#define PARSED(title, help)                                                                                                      \
    {.name = "pilotscope." #title,                                                                                               \
     .description = help,                                                                                                        \
     .parse = parse_##title,                                                                                                     \
     .check = check_##title,                                                                                                     \
     .assign = assign_##title,                                                                                                   \
     .result = &ps_##title}

static Parsed parsed[4] = {
    PARSED(cardinalities, "Rows of sets of relations: {\"a b\": 10, \"2:x\": 7}."),
    PARSED(methods, "Methods of joins and scans: {\"a b\": \"hashjoin\", \"a\": \"indexscan\"}."),
    PARSED(join_order, "Join trees, outer side first: ((a b) c), or with groups in any order: ((a b c) d)."),
    PARSED(hidden_indexes, "Indexes that the planner is not to see, separated by commas."),
};

/* Bring the parsed values up to date. Their texts were checked, so they have no errors. */
void ps_refresh_settings(void) {
    for (size_t i = 0; i < lengthof(parsed); i++) {
        Parsed *setting = &parsed[i];
        MemoryContext before;
        char *error;

        if (!setting->stale)
            continue;
        *setting->result = NIL;
        if (setting->memory)
            MemoryContextReset(setting->memory);
        else
            setting->memory = AllocSetContextCreate(TopMemoryContext, "pilotscope setting", ALLOCSET_DEFAULT_SIZES);
        before = MemoryContextSwitchTo(setting->memory);
        if (!is_empty(setting->text))
            *setting->result = setting->parse(setting->text, &error);
        MemoryContextSwitchTo(before);
        setting->stale = false;
    }
}

static void define_switch(const char *name, const char *description, bool *variable) {
    DefineCustomBoolVariable(name, description, NULL, variable, false, PGC_USERSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
}

static void define_result(const char *name, const char *description, GucShowHook show_hook) {
    static char *unused[3];
    static int count = 0;

    DefineCustomStringVariable(name, description, NULL, &unused[count++], "", PGC_INTERNAL,
                               GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, show_hook);
}

void ps_define_settings(void) {
    for (size_t i = 0; i < lengthof(parsed); i++)
        DefineCustomStringVariable(parsed[i].name, parsed[i].description, NULL, &parsed[i].text, "", PGC_USERSET,
                                   GUC_NOT_IN_SAMPLE, parsed[i].check, parsed[i].assign, NULL);
    define_switch("pilotscope.enumerate", "Note the sets of relations that the planner considers.", &ps_enumerate);
    define_switch("pilotscope.enumerate_sql", "Note also what each set of relations means.", &ps_enumerate_sql);
    define_switch("pilotscope.ignore_statistics", "Note them without looking at column statistics.", &ps_ignore_statistics);
    ps_define_drop_buffers();
    define_result("pilotscope.subplans", "The sets of relations considered for the last planned statement.", ps_show_report);
    define_result("pilotscope.meaning", "What the sets of the last planned statement mean.", ps_show_meaning);
    define_result("pilotscope.timing", "Planning and execution time of the last top-level statement.", ps_show_timing);
#if PG_VERSION_NUM >= 150000
    MarkGUCPrefixReserved("pilotscope");
#else
    EmitWarningsOnPlaceholders("pilotscope");
#endif
}
