/*
 * base_rows.c: base relations: injected rows, scan methods, hidden indexes.
 *
 * The planner sizes all base relations of a level before it builds the paths of the first, so at the first call of the
 * pathlist hook all sizes can be replaced at once, and only that one relation has paths that know the old sizes.
 */
#include "pilotscope.h"

#include "catalog/pg_class.h"
#include "nodes/parsenodes.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/plancat.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"

static set_rel_pathlist_hook_type previous_pathlist;
#if PG_VERSION_NUM >= 190000
static build_simple_rel_hook_type previous_relation_info;
#else
static get_relation_info_hook_type previous_relation_info;
#endif
static get_relation_stats_hook_type previous_relation_stats;

/* Partitions and members of UNION ALL: their paths add up to those of their parent. */
static void scale_members(PsLevel *level, Index parent, double factor) {
    ListCell *cell;

    foreach (cell, level->root->append_rel_list) {
        AppendRelInfo *member = lfirst_node(AppendRelInfo, cell);
        RelOptInfo *rel = level->root->simple_rel_array[member->child_relid];

        if (member->parent_relid != parent || rel == NULL || IS_DUMMY_REL(rel))
            continue;
        rel->rows = clamp_row_est(rel->rows * factor);
        level->factor[member->child_relid] = factor;
        scale_members(level, member->child_relid, factor);
    }
}

static void inject_base_rows(PsLevel *level) {
    int index = -1;

    while ((index = bms_next_member(level->base, index)) >= 0) {
        RelOptInfo *rel = level->root->simple_rel_array[index];
        PsSet *set = rel ? ps_find(level, rel->relids) : NULL;

        if (set == NULL || set->rows < 0 || IS_DUMMY_REL(rel))
            continue;
        set->stock = rel->rows;
        if (rel->rows == set->rows)
            continue;
        level->factor[index] = set->rows / Max(rel->rows, 1);
        level->changed = true;
        rel->rows = set->rows;
        if (level->root->simple_rte_array[index]->inh)
            scale_members(level, index, level->factor[index]);
    }
}

static bool is_plain_table(const RangeTblEntry *rte) {
    return rte->rtekind == RTE_RELATION && !rte->inh && rte->tablesample == NULL &&
           (rte->relkind == RELKIND_RELATION || rte->relkind == RELKIND_MATVIEW || rte->relkind == RELKIND_TOASTVALUE);
}

/* Add the paths of set_plain_rel_pathlist() in allpaths.c, in the same order. */
static void build_plain_paths(PlannerInfo *root, RelOptInfo *rel) {
    Relids required = rel->lateral_relids;

    rel->pathlist = NIL;
    rel->partial_pathlist = NIL;
#if PG_VERSION_NUM >= 180000
    if (create_tidscan_paths(root, rel))
        return; /* CURRENT OF allows nothing else */
#endif
    add_path(rel, create_seqscan_path(root, rel, required, 0));
    if (rel->consider_parallel && required == NULL) {
        int workers = compute_parallel_worker(rel, rel->pages, -1, max_parallel_workers_per_gather);

        if (workers > 0)
            add_partial_path(rel, create_seqscan_path(root, rel, NULL, workers));
    }
    create_index_paths(root, rel);
#if PG_VERSION_NUM < 180000
    create_tidscan_paths(root, rel);
#endif
}

/*
 * Paths that were made together with the size (subqueries, CTEs, functions), or that sum up members: their costs hardly
 * depend on the rows they return, so giving them the new number is enough.
 */
static void relabel_paths(RelOptInfo *rel, double factor, bool sums_members) {
    ListCell *cell;

    foreach (cell, rel->pathlist) {
        Path *path = lfirst(cell);

        if (path->param_info == NULL)
            path->rows = rel->rows;
    }
    foreach (cell, rel->partial_pathlist) {
        Path *path = lfirst(cell);

        if (!sums_members)
            path->rows = clamp_row_est(path->rows * factor);
    }
}

/* The scan method wanted for a relation; partitions follow their table. */
static PsMethod scan_method(PsLevel *level, RelOptInfo *rel) {
    PsSet *set = ps_find(level, rel->reloptkind == RELOPT_BASEREL ? rel->relids : rel->top_parent_relids);

    return set && !ps_is_join_method(set->method) ? set->method : PS_ANY;
}

static void build_paths_with_method(PlannerInfo *root, RelOptInfo *rel, PsMethod method) {
    PsSwitches saved;

    ps_choose_method(method, rel, &saved);
    PG_TRY();
    {
        build_plain_paths(root, rel);
    }
    PG_FINALLY();
    {
        ps_restore_methods(rel, &saved);
    }
    PG_END_TRY();
}

static void steer_relation(PlannerInfo *root, RelOptInfo *rel, Index index, RangeTblEntry *rte) {
    PsLevel *level = ps_level(root);
    bool first = level->fresh;
    bool stale;
    PsMethod method;

    level->fresh = false;
    if (level->sets == NULL)
        return;
    if (first)
        inject_base_rows(level);
    stale = first && level->changed;
    method = scan_method(level, rel);
    if (IS_DUMMY_REL(rel) || (int)index >= level->size)
        return;
    if (!is_plain_table(rte)) {
        if (level->factor[index] != 1)
            relabel_paths(rel, level->factor[index], rte->inh);
        return;
    }
    if (stale)
        rel->ppilist = NIL; /* it remembers row counts capped by the old size */
    if (method != PS_ANY)
        build_paths_with_method(root, rel, method);
    else if (stale)
        build_plain_paths(root, rel);
}

static void set_rel_pathlist(PlannerInfo *root, RelOptInfo *rel, Index index, RangeTblEntry *rte) {
    if (ps_run)
        steer_relation(root, rel, index, rte);
    if (previous_pathlist)
        previous_pathlist(root, rel, index, rte);
}

/* A hidden index is given by its name, or by schema and name. */
static bool is_hidden(Oid index) {
    char *name = get_rel_name(index);
    char *schema = name ? get_namespace_name(get_rel_namespace(index)) : NULL;
    char *qualified;
    ListCell *cell;

    if (schema == NULL)
        return false; /* a hypothetical index, which has no catalog entry */
    qualified = psprintf("%s.%s", schema, name);
    foreach (cell, ps_hidden_indexes)
        if (strcmp(lfirst(cell), name) == 0 || strcmp(lfirst(cell), qualified) == 0)
            return true;
    return false;
}

static void hide_indexes(RelOptInfo *rel) {
    ListCell *cell;

    if (ps_run == NULL || ps_hidden_indexes == NULL)
        return;
    foreach (cell, rel->indexlist) {
        IndexOptInfo *index = lfirst(cell);

        if (is_hidden(index->indexoid))
            rel->indexlist = foreach_delete_current(rel->indexlist, cell);
    }
}

#if PG_VERSION_NUM >= 190000
static void build_relation_without_hidden(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *rte) {
    if (previous_relation_info)
        previous_relation_info(root, rel, rte);
    hide_indexes(rel);
}
#else
static void get_relation_info_without_hidden(PlannerInfo *root, Oid table, bool is_parent, RelOptInfo *rel) {
    if (previous_relation_info)
        previous_relation_info(root, table, is_parent, rel);
    hide_indexes(rel);
}
#endif

/* Comparing long lists of common values takes most of the planning, and does not change what a set of relations means. */
static bool without_statistics(PlannerInfo *root, RangeTblEntry *rte, AttrNumber column, VariableStatData *found) {
    if (ps_run && ps_enumerate && ps_ignore_statistics) {
        found->statsTuple = NULL;
        return true;
    }
    return previous_relation_stats ? previous_relation_stats(root, rte, column, found) : false;
}

void ps_install_base(void) {
    previous_pathlist = set_rel_pathlist_hook;
    set_rel_pathlist_hook = set_rel_pathlist;
#if PG_VERSION_NUM >= 190000
    previous_relation_info = build_simple_rel_hook;
    build_simple_rel_hook = build_relation_without_hidden;
#else
    previous_relation_info = get_relation_info_hook;
    get_relation_info_hook = get_relation_info_without_hidden;
#endif
    previous_relation_stats = get_relation_stats_hook;
    get_relation_stats_hook = without_statistics;
}
