/*
 * join_rows.c: join relations: injected rows, join methods and directions.
 *
 * A join relation gets its rows once, when it is made; the hook comes after the paths of each pair of inputs were added.
 * To change the rows, or to keep only some paths, the paths of the pair are thrown away and made again. Nothing is
 * remembered about a join relation outside of it: GEQO builds the same ones over and over in memory
 * that it throws away.
 */
#include "pilotscope.h"

#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"

static set_join_pathlist_hook_type previous_pathlist;

#if PG_VERSION_NUM >= 190000
#define JOIN_STRATEGIES                                                                                                          \
    (PGS_NESTLOOP_PLAIN | PGS_NESTLOOP_MATERIALIZE | PGS_NESTLOOP_MEMOIZE | PGS_MERGEJOIN_PLAIN | PGS_MERGEJOIN_MATERIALIZE |    \
     PGS_HASHJOIN)
#define SCAN_STRATEGIES                                                                                                          \
    (PGS_SEQSCAN | PGS_INDEXSCAN | PGS_INDEXONLYSCAN | PGS_CONSIDER_INDEXONLY | PGS_BITMAPSCAN | PGS_TIDSCAN)

/* The strategies of a method; those that a switch of its own belongs to obey it, as in standard_planner(). */
static uint64 strategies(PsMethod method) {
    switch (method) {
    case PS_NESTLOOP:
        return PGS_NESTLOOP_PLAIN | (enable_material ? PGS_NESTLOOP_MATERIALIZE : 0) | (enable_memoize ? PGS_NESTLOOP_MEMOIZE : 0);
    case PS_MERGEJOIN:
        return PGS_MERGEJOIN_PLAIN | (enable_material ? PGS_MERGEJOIN_MATERIALIZE : 0);
    case PS_HASHJOIN:
        return PGS_HASHJOIN;
    case PS_SEQSCAN:
        return PGS_SEQSCAN;
    case PS_INDEXSCAN:
        return PGS_INDEXSCAN;
    case PS_INDEXONLYSCAN:
        return PGS_INDEXONLYSCAN | PGS_CONSIDER_INDEXONLY;
    case PS_BITMAPSCAN:
        return PGS_BITMAPSCAN;
    case PS_TIDSCAN:
        return PGS_TIDSCAN;
    default:
        return 0;
    }
}

/* From 19 on the planner reads the session's switches once for each statement, and then the mask of each relation. */
void ps_choose_method(PsMethod method, RelOptInfo *rel, PsSwitches *saved) {
    saved->mask = rel->pgs_mask;
    if (method != PS_ANY)
        rel->pgs_mask = (rel->pgs_mask & ~(uint64)(ps_is_join_method(method) ? JOIN_STRATEGIES : SCAN_STRATEGIES)) | strategies(method);
}

void ps_restore_methods(RelOptInfo *rel, const PsSwitches *saved) {
    rel->pgs_mask = saved->mask;
}
#else
/* The planner's own switches, by method. */
static bool *const switches[PS_METHODS] = {
    [PS_NESTLOOP] = &enable_nestloop,     [PS_MERGEJOIN] = &enable_mergejoin, [PS_HASHJOIN] = &enable_hashjoin,
    [PS_SEQSCAN] = &enable_seqscan,       [PS_INDEXSCAN] = &enable_indexscan, [PS_INDEXONLYSCAN] = &enable_indexonlyscan,
    [PS_BITMAPSCAN] = &enable_bitmapscan, [PS_TIDSCAN] = &enable_tidscan,
};

/* Leave one join method, or one scan method, switched on. The caller restores the switches. */
void ps_choose_method(PsMethod method, RelOptInfo *rel, PsSwitches *saved) {
    (void)rel;
    for (int i = PS_ANY + 1; i < PS_METHODS; i++) {
        saved->on[i] = *switches[i];
        if (method != PS_ANY && ps_is_join_method(i) == ps_is_join_method(method))
            *switches[i] = i == (int)method;
    }
    if (method == PS_INDEXONLYSCAN)
        enable_indexscan = true; /* the planner charges both kinds for this one */
}

void ps_restore_methods(RelOptInfo *rel, const PsSwitches *saved) {
    (void)rel;
    for (int i = PS_ANY + 1; i < PS_METHODS; i++)
        *switches[i] = saved->on[i];
}
#endif

/* Tell whether no other library set the hook before this one; those that came later cannot be seen. */
bool ps_join_hook_is_ours_alone(void) {
    return previous_pathlist == NULL;
}

/* One pair of inputs, as the hook gets it. */
typedef struct Pair {
    PlannerInfo *root;
    RelOptInfo *joinrel;
    RelOptInfo *outer;
    RelOptInfo *inner;
    JoinType jointype;
    JoinPathExtraData *extra;
} Pair;

/* Add the paths of the pair once more. That calls the hook again, which then passes it on to its predecessor. */
static void add_paths_again(const Pair *pair) {
    ps_run->redoing = true;
    add_paths_to_joinrel(pair->root, pair->joinrel, pair->outer, pair->inner, pair->jointype, pair->extra->sjinfo,
                         pair->extra->restrictlist);
    ps_run->redoing = false;
}

/* Paths that their makers would not offer a second time. */
static List *foreign_paths(List *paths) {
    List *kept = NIL;
    ListCell *cell;

    foreach (cell, paths)
        if (IsA(lfirst(cell), ForeignPath) || IsA(lfirst(cell), CustomPath))
            kept = lappend(kept, lfirst(cell));
    return kept;
}

/*
 * The share of its table that a member of a partitionwise join has: that of its first relation, so that it is the same
 * whichever pair the member was joined from, and the shares of all members sum up to one.
 */
static double member_share(PlannerInfo *root, RelOptInfo *joinrel) {
    RelOptInfo *first = NULL;
    int parent = 0;
    int index = -1;

    while ((index = bms_next_member(joinrel->relids, index)) >= 0) {
        RelOptInfo *rel = index < root->simple_rel_array_size ? root->simple_rel_array[index] : NULL;
        int top;

        if (rel == NULL)
            continue; /* an outer join */
        top = rel->top_parent_relids ? bms_next_member(rel->top_parent_relids, -1) : index;
        if (first == NULL || top < parent) {
            first = rel;
            parent = top;
        }
    }
    return first ? first->rows / Max(root->simple_rel_array[parent]->rows, 1) : 1;
}

/* The rows wanted for a join relation, or -1. The set is its own, or for a partitionwise join that of the whole tables. */
static double wanted_rows(const PsSet *set, PlannerInfo *root, RelOptInfo *joinrel) {
    if (set == NULL || set->rows < 0)
        return -1;
    if (joinrel->reloptkind == RELOPT_JOINREL)
        return set->rows;
    return clamp_row_est(set->rows * member_share(root, joinrel));
}

static bool inject_rows(PsSet *set, const Pair *pair) {
    RelOptInfo *joinrel = pair->joinrel;
    double rows = wanted_rows(set, pair->root, joinrel);

    if (rows < 0)
        return false;
    if (set->stock < 0 && joinrel->reloptkind == RELOPT_JOINREL)
        set->stock = joinrel->rows;
    if (joinrel->rows == rows)
        return false;
    joinrel->rows = rows;
    joinrel->pathlist = foreign_paths(joinrel->pathlist);
    joinrel->partial_pathlist = NIL;
    joinrel->ppilist = NIL;
    return true;
}

/* Copies of join paths. The planner frees paths that it finds too expensive, but nothing below them. */
static List *copy_paths(List *paths) {
    List *copies = NIL;
    ListCell *cell;

    foreach (cell, paths) {
        Path *path = lfirst(cell);
        Size size = IsA(path, NestPath)    ? sizeof(NestPath)
                    : IsA(path, MergePath) ? sizeof(MergePath)
                    : IsA(path, HashPath)  ? sizeof(HashPath)
                                           : 0;

        if (size > 0)
            copies = lappend(copies, memcpy(palloc(size), path, size));
    }
    return copies;
}

/* The paths of a join relation that obey its hints, kept between the pairs that it is made from. */
typedef struct Obedient {
    List *paths;
    List *partial_paths;
} Obedient;

static bool has_plain_path(RelOptInfo *rel) {
    ListCell *cell;

    foreach (cell, rel->pathlist)
        if (bms_is_subset(PATH_REQ_OUTER((Path *)lfirst(cell)), rel->lateral_relids))
            return true;
    return false;
}

static void add_paths_with_method(const Pair *pair, PsMethod method) {
    PsSwitches saved;

    ps_choose_method(method, pair->joinrel, &saved);
    PG_TRY();
    {
        add_paths_again(pair);
    }
    PG_FINALLY();
    {
        ps_restore_methods(pair->joinrel, &saved);
    }
    PG_END_TRY();
}

/*
 * Keep only paths with the wanted method and direction. The planner has added those of this pair with all methods, and
 * they may have pushed out obedient ones of earlier pairs; hence the copies, which hang on the join relation itself (in
 * a field that only foreign joins use) and so live exactly as long as it does.
 */
static void obey(const PsSet *set, const Pair *pair) {
    RelOptInfo *joinrel = pair->joinrel;
    Obedient *obedient = joinrel->fdw_private;
    List *paths = joinrel->pathlist;
    List *partial_paths = joinrel->partial_pathlist;
    bool right_way = set->outer == NULL || bms_equal(set->outer, ps_base_part(pair->root, pair->outer));

    if (obedient == NULL && !right_way)
        return; /* in case that there is no other way */
    if (obedient == NULL)
        joinrel->fdw_private = obedient = palloc0(sizeof(Obedient));
    joinrel->pathlist = copy_paths(obedient->paths);
    joinrel->partial_pathlist = copy_paths(obedient->partial_paths);
    if (right_way)
        add_paths_with_method(pair, set->method);
    if (!has_plain_path(joinrel)) {
        joinrel->pathlist = paths;
        joinrel->partial_pathlist = partial_paths;
        return;
    }
    obedient->paths = copy_paths(joinrel->pathlist);
    obedient->partial_paths = copy_paths(joinrel->partial_pathlist);
}

/* Tell whether the paths of the pair were replaced, and so were already shown to the other users of the hook. */
static bool steer_join(const Pair *pair) {
    PsLevel *level = ps_level(pair->root);
    RelOptInfo *joinrel = pair->joinrel;
    bool is_whole = joinrel->reloptkind == RELOPT_JOINREL;
    bool note = ps_enumerate && is_whole && (ps_enumerate_sql || pair->root->join_rel_level == NULL);
    Relids relids;
    PsSet *set;
    bool redo;

    if (level->sets == NULL && !note)
        return false;
#if PG_VERSION_NUM >= 190000
    if (IS_GROUPED_REL(joinrel))
        return false; /* eager aggregation: it has the relations of a set, but the rows of its groups */
#endif
    relids = is_whole ? ps_base_part(pair->root, joinrel) : bms_intersect(joinrel->top_parent_relids, level->base);
    set = note ? ps_enter(level, relids) : ps_find(level, relids);
    if (set == NULL)
        return false;
    if (ps_enumerate && ps_enumerate_sql && is_whole)
        ps_note_join(set, pair->root, joinrel, pair->outer, pair->inner, pair->jointype, pair->extra);
    redo = inject_rows(set, pair);
    if (redo)
        add_paths_again(pair);
    if (note && pair->root->join_rel_level == NULL)
        set->seen = joinrel->rows;
    if (!is_whole || joinrel->fdwroutine || (set->outer == NULL && !ps_is_join_method(set->method)))
        return redo;
    obey(set, pair);
    return true;
}

static void set_join_pathlist(PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner, JoinType jointype,
                              JoinPathExtraData *extra) {
    if (ps_run) {
        Pair pair = {root, joinrel, outer, inner, jointype, extra};
        bool asked_for = ps_run->redoing;

        ps_run->redoing = false;
        if (!asked_for && steer_join(&pair))
            return;
    }
    if (previous_pathlist)
        previous_pathlist(root, joinrel, outer, inner, jointype, extra);
}

void ps_install_joins(void) {
    previous_pathlist = set_join_pathlist_hook;
    set_join_pathlist_hook = set_join_pathlist;
}
