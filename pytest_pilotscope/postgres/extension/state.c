/*
 * state.c: the record of the planner run, the records of its query levels, and the clocks.
 */
#include "pilotscope.h"

#include <math.h>

#include "executor/executor.h"
#include "fmgr.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "portability/instr_time.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

PsRun	   *ps_run = NULL;

static planner_hook_type previous_planner;
static ExecutorStart_hook_type previous_start;
static ExecutorRun_hook_type previous_run;
static ExecutorFinish_hook_type previous_finish;
static ExecutorEnd_hook_type previous_end;

/*
 * How deep inside the planner or the executor we are. What functions and triggers plan and run is below a statement
 * of the user's, has aliases of its own, and is neither steered nor timed.
 */
static int	depth = 0;

static struct
{
	double		planning_ms;
	double		execution_ms;	/* NaN: not executed */
	bool		fresh;			/* planned, and not started since */
	QueryDesc  *running;		/* what the clock below belongs to */
	instr_time	spent;
} timing = {.planning_ms = NAN, .execution_ms = NAN};

static double
milliseconds_since(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_MILLISEC(now);
}

const char *
ps_show_timing(void)
{
	static char text[100];
	int			used;

	if (isnan(timing.planning_ms))
		return "{}";
	used = snprintf(text, sizeof(text), "{\"planning_ms\": %.6f, \"execution_ms\": ", timing.planning_ms);
	if (isnan(timing.execution_ms))
		snprintf(text + used, sizeof(text) - used, "null}");
	else
		snprintf(text + used, sizeof(text) - used, "%.6f}", timing.execution_ms);
	return text;
}

static bool
anything_to_do(void)
{
	return ps_cardinalities || ps_enumerate || ps_join_order || ps_methods || ps_hidden_indexes;
}

static PsRun *
begin_run(void)
{
	PsRun	   *run = palloc0(sizeof(PsRun));

	run->context = CurrentMemoryContext;
	run->used_rows = palloc0(sizeof(bool) * (ps_cardinalities ? ps_cardinalities->count : 0));
	run->used_methods = palloc0(sizeof(bool) * (ps_methods ? ps_methods->count : 0));
	run->used_trees = palloc0(sizeof(bool) * (ps_join_order ? ps_join_order->count : 0));
	return run;
}

static const char *
key_text(const PsKey *key)
{
	StringInfoData text;

	initStringInfo(&text);
	if (key->level > 0)
		appendStringInfo(&text, "%d:", key->level);
	for (int i = 0; i < key->count; i++)
		appendStringInfo(&text, "%s%s", i ? " " : "", key->aliases[i]);
	return text.data;
}

/* One warning for all keys that name no relations of the statement: it may be a misspelled alias. */
static void
warn_unused(const char *setting, const PsKeys *keys, const bool *used)
{
	const PsKey *first = NULL;
	int			count = 0;

	for (int i = 0; keys && i < keys->count; i++)
	{
		if (used[i])
			continue;
		if (count++ == 0)
			first = &keys->keys[i];
	}
	if (count > 0)
		ereport(WARNING,
				(errmsg("%s: %d of %d keys name no relations of this statement, the first is \"%s\"",
						setting, count, keys->count, key_text(first))));
}

static void
finish_run(void)
{
	if (ps_enumerate)
		ps_report();
	if (ps_run->levels == NULL)
		return;					/* it has no relations at all, like "SELECT 1" */
	warn_unused("pilotscope.cardinalities", ps_cardinalities, ps_run->used_rows);
	warn_unused("pilotscope.methods", ps_methods, ps_run->used_methods);
	for (int i = 0; ps_join_order && i < ps_join_order->count; i++)
		if (!ps_run->used_trees[i])
			ereport(WARNING,
					(errmsg("pilotscope.join_order: tree %d of %d was not used: it does not fit the relations of this statement",
							i + 1, ps_join_order->count)));
}

static PlannedStmt *
plan(Query *parse, const char *text, int cursor_options, ParamListInfo parameters)
{
	PsRun	   *outer_run = ps_run;
	bool		top = depth == 0;
	PlannedStmt *result = NULL;
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	ps_run = NULL;
	if (top)
	{
		ps_forget_report();
		if (anything_to_do())
			ps_run = begin_run();
	}
	depth++;
	PG_TRY();
	{
		result = previous_planner ? previous_planner(parse, text, cursor_options, parameters)
			: standard_planner(parse, text, cursor_options, parameters);
		if (ps_run)
			finish_run();
	}
	PG_FINALLY();
	{
		depth--;
		ps_run = outer_run;
	}
	PG_END_TRY();
	if (top)
	{
		timing.planning_ms = milliseconds_since(start);
		timing.execution_ms = NAN;
		timing.fresh = true;
	}
	return result;
}

/* Do one phase of a statement, and add its time if the clock belongs to it. */
#define TIMED_PHASE(query, call) \
	do { \
		instr_time	begin; \
		instr_time	end; \
		INSTR_TIME_SET_CURRENT(begin); \
		depth++; \
		PG_TRY(); \
		{ \
			call; \
		} \
		PG_FINALLY(); \
		{ \
			depth--; \
		} \
		PG_END_TRY(); \
		if (depth == 0 && timing.running == (query)) \
		{ \
			INSTR_TIME_SET_CURRENT(end); \
			INSTR_TIME_ACCUM_DIFF(timing.spent, end, begin); \
		} \
	} while (0)

static void
start_executor(QueryDesc *query, int flags)
{
	if (depth == 0)
	{
		if (!timing.fresh)
			timing.planning_ms = 0; /* a plan from the cache */
		timing.fresh = false;
		timing.execution_ms = NAN;
		timing.running = (flags & EXEC_FLAG_EXPLAIN_ONLY) ? NULL : query;
		INSTR_TIME_SET_ZERO(timing.spent);
	}
	TIMED_PHASE(query, previous_start ? previous_start(query, flags) : standard_ExecutorStart(query, flags));
}

#if PG_VERSION_NUM >= 180000
static void
run_executor(QueryDesc *query, ScanDirection direction, uint64 count)
{
	TIMED_PHASE(query, previous_run ? previous_run(query, direction, count) : standard_ExecutorRun(query, direction, count));
}
#else
static void
run_executor(QueryDesc *query, ScanDirection direction, uint64 count, bool once)
{
	TIMED_PHASE(query, previous_run ? previous_run(query, direction, count, once)
				: standard_ExecutorRun(query, direction, count, once));
}
#endif

static void
finish_executor(QueryDesc *query)
{
	TIMED_PHASE(query, previous_finish ? previous_finish(query) : standard_ExecutorFinish(query));
}

static void
end_executor(QueryDesc *query)
{
	TIMED_PHASE(query, previous_end ? previous_end(query) : standard_ExecutorEnd(query));
	if (depth == 0 && timing.running == query)
	{
		timing.execution_ms = INSTR_TIME_GET_MILLISEC(timing.spent);
		timing.running = NULL;
	}
}

/* The base relations of a relation. From 16 on, relids also hold outer joins. */
Relids
ps_base_part(PlannerInfo *root, RelOptInfo *rel)
{
#if PG_VERSION_NUM >= 160000
	if (!bms_is_empty(root->outer_join_rels))
		return bms_difference(rel->relids, root->outer_join_rels);
#else
	(void) root;
#endif
	return rel->relids;
}

PsSet *
ps_find(PsLevel *level, Relids relids)
{
	if (level->sets == NULL)
		return NULL;
	return hash_search(level->sets, &relids, HASH_FIND, NULL);
}

/* Find or make. The key is copied: it may live in memory of GEQO's that goes away. */
PsSet *
ps_enter(PsLevel *level, Relids relids)
{
	PsSet	   *set;
	bool		found;

	if (level->sets == NULL)
	{
		HASHCTL		control = {0};

		control.keysize = sizeof(Relids);
		control.entrysize = sizeof(PsSet);
		control.hash = bitmap_hash;
		control.match = bitmap_match;
		control.hcxt = ps_run->context;
		level->sets = hash_create("pilotscope sets", 64, &control, HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	}
	set = hash_search(level->sets, &relids, HASH_ENTER, &found);
	if (!found)
	{
		MemoryContext before = MemoryContextSwitchTo(ps_run->context);

		set->relids = bms_copy(relids);
		set->rows = set->stock = set->seen = -1;
		set->method = PS_ANY;
		set->outer = NULL;
		MemoryContextSwitchTo(before);
	}
	return set;
}

/* The range table index of an alias, or 0. */
int
ps_relation(PsLevel *level, const char *alias)
{
	for (int i = 1; i < level->size; i++)
		if (level->aliases[i] && strcmp(level->aliases[i], alias) == 0)
			return i;
	return 0;
}

/* Relations that have the same alias, as in a view that was flattened twice, become a, a#2, a#3. */
static void
name_relations(PsLevel *level)
{
	int			index = -1;

	while ((index = bms_next_member(level->base, index)) >= 0)
	{
		char	   *alias = level->root->simple_rte_array[index]->eref->aliasname;
		char	   *name = alias;

		for (int copy = 2; ps_relation(level, name) != 0; copy++)
			name = psprintf("%s#%d", alias, copy);
		level->aliases[index] = name;
	}
}

static Relids
key_relids(PsLevel *level, const PsKey *key)
{
	Relids		relids = NULL;

	if (key->level != 0 && key->level != level->id)
		return NULL;
	for (int i = 0; i < key->count; i++)
	{
		int			index = ps_relation(level, key->aliases[i]);

		if (index == 0)
		{
			bms_free(relids);
			return NULL;
		}
		relids = bms_add_member(relids, index);
	}
	return relids;
}

/* Translate the keys from aliases to sets of this level. Keys for this level alone come last and win. */
static void
translate_keys(PsLevel *level, const PsKeys *keys, bool *used, bool are_methods)
{
	for (int specific = 0; keys && specific <= 1; specific++)
	{
		for (int i = 0; i < keys->count; i++)
		{
			const PsKey *key = &keys->keys[i];
			Relids		relids = (key->level != 0) == specific ? key_relids(level, key) : NULL;

			if (relids == NULL)
				continue;
			used[i] = true;
			if (are_methods)
				ps_enter(level, relids)->method = key->method;
			else
				ps_enter(level, relids)->rows = clamp_row_est(key->rows);
		}
	}
}

static PsLevel *
make_level(PlannerInfo *root)
{
	MemoryContext before = MemoryContextSwitchTo(ps_run->context);
	PsLevel    *level = palloc0(sizeof(PsLevel));

	level->root = root;
	level->id = ++ps_run->count;
	level->base = bms_copy(root->all_baserels);
	level->size = root->simple_rel_array_size;
	level->aliases = palloc0(sizeof(char *) * level->size);
	level->factor = palloc(sizeof(double) * level->size);
	for (int i = 0; i < level->size; i++)
		level->factor[i] = 1;
	level->fresh = true;
	level->next = ps_run->levels;
	ps_run->levels = level;
	name_relations(level);
	translate_keys(level, ps_cardinalities, ps_run->used_rows, false);
	translate_keys(level, ps_methods, ps_run->used_methods, true);
	MemoryContextSwitchTo(before);
	return level;
}

/* The record of a query level, made at its first base relation. */
PsLevel *
ps_level(PlannerInfo *root)
{
	for (PsLevel *level = ps_run->levels; level; level = level->next)
		if (level->root == root)
			return level;
	return make_level(root);
}

void
ps_install_state(void)
{
	previous_planner = planner_hook;
	planner_hook = plan;
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = start_executor;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = run_executor;
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = finish_executor;
	previous_end = ExecutorEnd_hook;
	ExecutorEnd_hook = end_executor;
}
