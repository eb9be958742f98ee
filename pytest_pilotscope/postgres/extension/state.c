/*
 * state.c: the record of the planner run, the records of its query levels, and the clocks.
 */
#include "pilotscope.h"

#include <math.h>

#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "portability/instr_time.h"
#include "lib/stringinfo.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

PsRun *ps_run = NULL;

static planner_hook_type previous_planner;
static ExecutorStart_hook_type previous_start;
static ExecutorRun_hook_type previous_run;
static ExecutorFinish_hook_type previous_finish;
static ExecutorEnd_hook_type previous_end;

/*
 * The depth inside the planner or the executor. Statements of functions and triggers are below a statement of the
 * user's, have aliases of their own, and are neither steered nor timed.
 */
static int depth = 0;

static struct {
    double planning_ms;
    double execution_ms; /* NaN: not executed */
    bool fresh;          /* planned, and not started since */
    QueryDesc *running;  /* the statement that the clock below belongs to */
    instr_time spent;
} timing = {.planning_ms = NAN, .execution_ms = NAN};

static double milliseconds_since(instr_time start) {
    instr_time now;

    INSTR_TIME_SET_CURRENT(now);
    INSTR_TIME_SUBTRACT(now, start);
    return INSTR_TIME_GET_MILLISEC(now);
}

const char *ps_show_timing(void) {
    static char text[100];
    int used;

    if (isnan(timing.planning_ms))
        return "{}";
    used = snprintf(text, sizeof(text), "{\"planning_ms\": %.6f, \"execution_ms\": ", timing.planning_ms);
    if (isnan(timing.execution_ms))
        snprintf(text + used, sizeof(text) - used, "null}");
    else
        snprintf(text + used, sizeof(text) - used, "%.6f}", timing.execution_ms);
    return text;
}

static PsRun *begin_run(void) {
    PsRun *run = palloc0(sizeof(PsRun));
    ListCell *cell;

    run->context = CurrentMemoryContext;
    foreach (cell, ps_cardinalities)
        ((PsKey *)lfirst(cell))->used = false;
    foreach (cell, ps_methods)
        ((PsKey *)lfirst(cell))->used = false;
    foreach (cell, ps_join_order)
        ((PsTree *)lfirst(cell))->used = false;
    return run;
}

/* One warning for all keys that name no relations of the statement: it may be a misspelled alias. */
static void warn_unused(const char *setting, List *keys) {
    StringInfoData first;
    int count = 0;
    ListCell *cell, *alias;

    foreach (cell, keys) {
        PsKey *key = lfirst(cell);

        if (key->used || count++ > 0)
            continue;
        initStringInfo(&first);
        if (key->level > 0)
            appendStringInfo(&first, "%d:", key->level);
        foreach (alias, key->aliases)
            appendStringInfo(&first, "%s%s", alias == list_head(key->aliases) ? "" : " ", (char *)lfirst(alias));
    }
    if (count > 0)
        ereport(WARNING, (errmsg("%s: %d of %d keys name no relations of this statement, the first is \"%s\"", setting, count,
                                 list_length(keys), first.data)));
}

/* List the aliases of a tree that no relation of its level has, or of any level. */
static void append_absent(StringInfo names, const PsTree *tree, const PsNode *node) {
    bool found = node->alias == NULL;
    ListCell *cell;

    check_stack_depth();
    for (PsLevel *level = ps_run->levels; level && !found; level = level->next)
        found = (tree->level == 0 || tree->level == level->id) && ps_relation(level, node->alias) != 0;
    if (!found)
        appendStringInfo(names, "%s\"%s\"", names->len > 0 ? ", " : ", which has no ", node->alias);
    foreach (cell, node->children)
        append_absent(names, tree, lfirst(cell));
}

/* Warn about a tree that was folded in no level. */
static void warn_misfit(PsTree *tree, int number) {
    StringInfoData absent;

    initStringInfo(&absent);
    append_absent(&absent, tree, tree->root);
    if (tree->level > 0 && absent.len > 0)
        appendStringInfo(&absent, " at level %d", tree->level);
    ereport(WARNING, (errmsg("pilotscope.join_order: tree %d of %d was not used: it does not fit the relations of this statement%s",
                             number, list_length(ps_join_order), absent.data)));
}

static void finish_run(void) {
    ListCell *cell;

    if (ps_enumerate)
        ps_report();
    if (ps_enumerate && ps_enumerate_sql)
        ps_describe();
    if (ps_run->levels == NULL)
        return; /* it has no relations at all, like "SELECT 1" */
    warn_unused("pilotscope.cardinalities", ps_cardinalities);
    warn_unused("pilotscope.methods", ps_methods);
    foreach (cell, ps_join_order)
        if (!((PsTree *)lfirst(cell))->used)
            warn_misfit(lfirst(cell), list_cell_number(ps_join_order, cell) + 1);
}

/* What EXPLAIN asks for, which is given to the planner from 19 on. */
#if PG_VERSION_NUM >= 190000
#define EXPLAINED , ExplainState *explained
#define PASS_EXPLAINED , explained
#else
#define EXPLAINED
#define PASS_EXPLAINED
#endif

static PlannedStmt *plan(Query *parse, const char *text, int cursor_options, ParamListInfo parameters EXPLAINED) {
    PsRun *outer_run = ps_run;
    bool top = depth == 0;
    PlannedStmt *result = NULL;
    instr_time start;

    INSTR_TIME_SET_CURRENT(start);
    ps_run = NULL;
    if (top) {
        ps_forget_report();
        ps_forget_meaning();
        ps_refresh_settings();
        if (ps_cardinalities || ps_methods || ps_join_order || ps_hidden_indexes || ps_enumerate)
            ps_run = begin_run();
    }
    depth++;
    PG_TRY();
    {
        result = previous_planner ? previous_planner(parse, text, cursor_options, parameters PASS_EXPLAINED)
                                  : standard_planner(parse, text, cursor_options, parameters PASS_EXPLAINED);
        if (ps_run)
            finish_run();
    }
    PG_FINALLY();
    {
        depth--;
        ps_run = outer_run;
    }
    PG_END_TRY();
    if (top) {
        timing.planning_ms = milliseconds_since(start);
        timing.execution_ms = NAN;
        timing.fresh = true;
    }
    return result;
}

/* Do one phase of a statement, and add its time if the clock belongs to it. */
#define TIMED_PHASE(query, call)                                                                                                 \
    do {                                                                                                                         \
        instr_time begin;                                                                                                        \
        instr_time end;                                                                                                          \
        INSTR_TIME_SET_CURRENT(begin);                                                                                           \
        depth++;                                                                                                                 \
        PG_TRY();                                                                                                                \
        {                                                                                                                        \
            call;                                                                                                                \
        }                                                                                                                        \
        PG_FINALLY();                                                                                                            \
        {                                                                                                                        \
            depth--;                                                                                                             \
        }                                                                                                                        \
        PG_END_TRY();                                                                                                            \
        if (depth == 0 && timing.running == (query)) {                                                                           \
            INSTR_TIME_SET_CURRENT(end);                                                                                         \
            INSTR_TIME_ACCUM_DIFF(timing.spent, end, begin);                                                                     \
        }                                                                                                                        \
    } while (0)

static void start_executor(QueryDesc *query, int flags) {
    if (depth == 0) {
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
static void run_executor(QueryDesc *query, ScanDirection direction, uint64 count) {
    TIMED_PHASE(query, previous_run ? previous_run(query, direction, count) : standard_ExecutorRun(query, direction, count));
}
#else
static void run_executor(QueryDesc *query, ScanDirection direction, uint64 count, bool once) {
    TIMED_PHASE(query,
                previous_run ? previous_run(query, direction, count, once) : standard_ExecutorRun(query, direction, count, once));
}
#endif

static void finish_executor(QueryDesc *query) {
    TIMED_PHASE(query, previous_finish ? previous_finish(query) : standard_ExecutorFinish(query));
}

static void end_executor(QueryDesc *query) {
    TIMED_PHASE(query, previous_end ? previous_end(query) : standard_ExecutorEnd(query));
    if (depth == 0 && timing.running == query) {
        timing.execution_ms = INSTR_TIME_GET_MILLISEC(timing.spent);
        timing.running = NULL;
    }
}

/* The base relations of a relation. From 16 on, relids also hold outer joins. */
Relids ps_base_part(PlannerInfo *root, RelOptInfo *rel) {
#if PG_VERSION_NUM >= 160000
    if (!bms_is_empty(root->outer_join_rels))
        return bms_difference(rel->relids, root->outer_join_rels);
#else
    (void)root;
#endif
    return rel->relids;
}

PsSet *ps_find(PsLevel *level, Relids relids) {
    if (level->sets == NULL)
        return NULL;
    return hash_search(level->sets, &relids, HASH_FIND, NULL);
}

/* Find or make. The key is copied: it may live in memory of GEQO's that goes away. */
PsSet *ps_enter(PsLevel *level, Relids relids) {
    PsSet *set;
    bool found;

    if (level->sets == NULL) {
        HASHCTL control = {0};

        control.keysize = sizeof(Relids);
        control.entrysize = sizeof(PsSet);
        control.hash = bitmap_hash;
        control.match = bitmap_match;
        control.hcxt = ps_run->context;
        level->sets = hash_create("pilotscope sets", 64, &control, HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
    }
    set = hash_search(level->sets, &relids, HASH_ENTER, &found);
    if (!found) {
        MemoryContext before = MemoryContextSwitchTo(ps_run->context);

        set->relids = bms_copy(relids);
        set->rows = set->stock = set->seen = -1;
        set->method = PS_ANY;
        set->outer = NULL;
        set->pairs = NIL;
        MemoryContextSwitchTo(before);
    }
    return set;
}

/* The range table index of an alias, or 0. */
int ps_relation(PsLevel *level, const char *alias) {
    for (int i = 1; i < level->size; i++)
        if (level->aliases[i] && strcmp(level->aliases[i], alias) == 0)
            return i;
    return 0;
}

/* Relations that have the same alias, as in a view that was flattened twice, become a, a#2, a#3. */
static void name_relations(PsLevel *level) {
    int index = -1;

    while ((index = bms_next_member(level->base, index)) >= 0) {
        char *alias = level->root->simple_rte_array[index]->eref->aliasname;
        char *name = alias;

        for (int copy = 2; ps_relation(level, name) != 0; copy++)
            name = psprintf("%s#%d", alias, copy);
        level->aliases[index] = name;
    }
}

/* The relations of this level that a key names, or none. */
static Relids key_relids(PsLevel *level, const PsKey *key) {
    Relids relids = NULL;
    ListCell *cell;

    foreach (cell, key->aliases) {
        int index = key->level == 0 || key->level == level->id ? ps_relation(level, lfirst(cell)) : 0;

        if (index == 0)
            return NULL;
        relids = bms_add_member(relids, index);
    }
    return relids;
}

/* Translate the keys from aliases to sets of this level. Keys for this level alone come last and win. */
static void translate_keys(PsLevel *level, List *keys) {
    ListCell *cell;

    for (int specific = 0; specific <= 1; specific++) {
        foreach (cell, keys) {
            PsKey *key = lfirst(cell);
            Relids relids = (key->level != 0) == specific ? key_relids(level, key) : NULL;

            if (relids == NULL)
                continue;
            key->used = true;
            if (key->method != PS_ANY)
                ps_enter(level, relids)->method = key->method;
            else
                ps_enter(level, relids)->rows = clamp_row_est(key->rows);
        }
    }
}

/*
 * Tell whether this is the trial by which the planner finds out if an index gives the minimum or maximum (planagg.c): a copy of the
 * query that it is about to plan, with one result and a limit. It has the rows of that query, and no place in the report.
 */
static bool is_trial(PlannerInfo *root) {
    Query *query = root->parse;
    Query *outer = root->parent_root ? root->parent_root->parse : NULL;

    return outer && outer->hasAggs && !outer->hasSubLinks && query->limitCount && list_length(query->targetList) == 1 &&
           equal(query->rtable, outer->rtable);
}

static PsLevel *make_level(PlannerInfo *root) {
    MemoryContext before = MemoryContextSwitchTo(ps_run->context);
    PsLevel *level = palloc0(sizeof(PsLevel));

    level->root = root;
    level->trial = is_trial(root);
    level->id = level->trial ? ps_run->count + 1 : ++ps_run->count;
    level->base = bms_copy(root->all_baserels);
    level->size = root->simple_rel_array_size;
    level->aliases = palloc0(sizeof(char *) * level->size);
    level->factor = palloc(sizeof(double) * level->size);
    for (int i = 0; i < level->size; i++)
        level->factor[i] = 1;
    level->fresh = true;
    if (ps_enumerate && ps_enumerate_sql)
        level->branches = ps_note_branches(level);
    level->next = ps_run->levels;
    ps_run->levels = level;
    name_relations(level);
    translate_keys(level, ps_cardinalities);
    translate_keys(level, ps_methods);
    MemoryContextSwitchTo(before);
    return level;
}

/* The record of a query level, made at its first base relation. */
PsLevel *ps_level(PlannerInfo *root) {
    for (PsLevel *level = ps_run->levels; level; level = level->next)
        if (level->root == root)
            return level;
    return make_level(root);
}

void _PG_init(void);

void _PG_init(void) {
    ps_define_settings();
    ps_install_base();
    ps_install_joins();
    ps_install_hints();
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
