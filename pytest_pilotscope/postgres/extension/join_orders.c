/*
 * join_orders.c: join orders given as trees.
 *
 * A tree is folded bottom-up with the planner's own make_join_rel(), and the normal search joins the members of a group.
 * It also joins the rest; a folded tree is one relation to it. join_rows.c obeys methods and directions.
 */
#include "pilotscope.h"

#include "miscadmin.h"
#include "optimizer/geqo.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"

static join_search_hook_type previous_search;

/* A tree while it is folded. */
typedef struct Folding {
    PlannerInfo *root;
    PsLevel *level;
    List *relations; /* to be joined: base relations, and joins that are fixed already */
    List *directed;  /* sets whose outer side was fixed */
} Folding;

static RelOptInfo *search(PlannerInfo *root, List *relations) {
    int count = list_length(relations);

    if (count == 1)
        return linitial(relations);
    if (previous_search)
        return previous_search(root, count, relations);
    if (enable_geqo && count >= geqo_threshold)
        return geqo(root, count, relations);
    return standard_join_search(root, count, relations);
}

/* The relation that a leaf names, if it is to be joined here and not inside another relation. */
static RelOptInfo *leaf_relation(const Folding *folding, const char *alias) {
    int index = ps_relation(folding->level, alias);
    ListCell *cell;

    foreach (cell, folding->relations) {
        RelOptInfo *rel = lfirst(cell);

        if (index > 0 && rel->reloptkind == RELOPT_BASEREL && rel->relid == (Index)index)
            return rel;
    }
    return NULL;
}

static bool names_relations(const Folding *folding, const PsNode *node) {
    ListCell *cell;

    check_stack_depth();
    foreach (cell, node->children)
        if (!names_relations(folding, lfirst(cell)))
            return false;
    return node->alias == NULL || leaf_relation(folding, node->alias) != NULL;
}

static bool is_complete(PlannerInfo *root, RelOptInfo *rel) {
#if PG_VERSION_NUM >= 160000
    return bms_equal(rel->relids, root->all_query_rels);
#else
    return bms_equal(rel->relids, root->all_baserels);
#endif
}

/* Paths that gather the rows of parallel workers; of the complete join the planner makes them itself. */
static RelOptInfo *gathered(PlannerInfo *root, RelOptInfo *joinrel) {
    if (!is_complete(root, joinrel))
        generate_useful_gather_paths(root, joinrel, false);
    set_cheapest(joinrel);
#if PG_VERSION_NUM >= 190000
    if (joinrel->grouped_rel && !is_complete(root, joinrel)) { /* eager aggregation */
        generate_grouped_paths(root, joinrel->grouped_rel, joinrel);
        set_cheapest(joinrel->grouped_rel);
    }
#endif
    return joinrel;
}

/* Join two relations and finish the result as the normal search does at the end of each of its levels. */
static RelOptInfo *join(Folding *folding, RelOptInfo *outer, RelOptInfo *inner) {
    PlannerInfo *root = folding->root;
    Relids sides = bms_union(ps_base_part(root, outer), ps_base_part(root, inner));
    PsSet *set = ps_enter(folding->level, sides);
    RelOptInfo *joinrel;

    set->outer = bms_copy(ps_base_part(root, outer));
    folding->directed = lappend(folding->directed, set);
    joinrel = make_join_rel(root, outer, inner);
    if (joinrel == NULL)
        return NULL;
    generate_partitionwise_join_paths(root, joinrel);
    return gathered(root, joinrel);
}

/* By the first relation, as in FROM: the planner's estimate for a set may depend on the pair that it makes first. */
static int by_first_relation(const ListCell *one, const ListCell *other) {
    return bms_next_member(((RelOptInfo *)lfirst(one))->relids, -1) - bms_next_member(((RelOptInfo *)lfirst(other))->relids, -1);
}

/*
 * Join the members of a group in the order that the normal search finds. Where outer joins or LATERAL forbid every order,
 * the search ends with an error, which no resource is held at; the result is then NULL.
 */
static RelOptInfo *join_group(PlannerInfo *root, List *members) {
    MemoryContext context = CurrentMemoryContext;
    RelOptInfo *volatile joinrel = NULL;

    list_sort(members, by_first_relation);
    PG_TRY();
    {
        joinrel = search(root, members);
    }
    PG_CATCH();
    {
        ErrorData *error;

        MemoryContextSwitchTo(context);
        error = CopyErrorData();
        if (error->sqlerrcode != ERRCODE_INTERNAL_ERROR || (strncmp(error->message, "failed to build any ", 20) != 0 &&
                                                            strncmp(error->message, "geqo failed ", 12) != 0))
            PG_RE_THROW();
        FlushErrorState();
        root->join_rel_level = NULL;
    }
    PG_END_TRY();
    return joinrel ? gathered(root, joinrel) : NULL;
}

/* NULL if outer joins or LATERAL forbid it. */
static RelOptInfo *fold(Folding *folding, const PsNode *node) {
    List *members = NIL;
    ListCell *cell;

    check_stack_depth();
    if (node->alias)
        return leaf_relation(folding, node->alias);
    foreach (cell, node->children) {
        RelOptInfo *member = fold(folding, lfirst(cell));

        if (member == NULL)
            return NULL;
        members = lappend(members, member);
    }
    return list_length(members) == 2 ? join(folding, linitial(members), lsecond(members)) : join_group(folding->root, members);
}

/* Put the folded tree in the place of the relations that it joins. */
static void replace_by(Folding *folding, RelOptInfo *joined) {
    List *others = NIL;
    ListCell *cell;

    foreach (cell, folding->relations)
        if (!bms_is_subset(((RelOptInfo *)lfirst(cell))->relids, joined->relids))
            others = lappend(others, lfirst(cell));
    folding->relations = lappend(others, joined);
    folding->root->initial_rels = folding->relations;
}

/* Forget the joins of a tree that cannot be had, the way GEQO forgets its own. */
static void undo(Folding *folding, int join_count, struct HTAB *join_hash) {
    ListCell *cell;

    folding->root->join_rel_list = list_truncate(folding->root->join_rel_list, join_count);
    folding->root->join_rel_hash = join_hash;
    foreach (cell, folding->directed)
        ((PsSet *)lfirst(cell))->outer = NULL;
}

static void fold_tree(Folding *folding, PsTree *tree) {
    struct HTAB *join_hash = folding->root->join_rel_hash;
    int join_count = list_length(folding->root->join_rel_list);
    RelOptInfo *joined;

    if ((tree->level != 0 && tree->level != folding->level->id) || !names_relations(folding, tree->root))
        return;
    tree->used = true;
    folding->directed = NIL;
    folding->root->join_rel_hash = NULL;
    joined = fold(folding, tree->root);
    if (joined) {
        replace_by(folding, joined);
        return;
    }
    undo(folding, join_count, join_hash);
    ereport(WARNING, (errmsg("pilotscope.join_order: a tree is not a legal join order here and was ignored")));
}

#if PG_VERSION_NUM < 170000
/*
 * Up to 16 the join hook is skipped for joins with pseudoconstant conditions ("now() > '2020-01-01'"), because foreign
 * tables and custom joins cannot deal with them. Without either, calling the hook is safe.
 */
static bool may_hide_pseudoconstants(PlannerInfo *root) {
    if (!root->hasPseudoConstantQuals || !ps_join_hook_is_ours_alone())
        return false;
    for (int i = 1; i < root->simple_rel_array_size; i++)
        if (root->simple_rel_array[i] && root->simple_rel_array[i]->fdwroutine)
            return false;
    return true;
}
#else
#define may_hide_pseudoconstants(root) false
#endif

static RelOptInfo *search_with_hints(PlannerInfo *root, List *relations) {
    Folding folding = {.root = root, .level = ps_level(root), .relations = relations};
    bool hidden = may_hide_pseudoconstants(root);
    RelOptInfo *result;
    ListCell *cell;

    if (hidden)
        root->hasPseudoConstantQuals = false;
    foreach (cell, ps_join_order)
        fold_tree(&folding, lfirst(cell));
    result = search(root, folding.relations);
    if (hidden)
        root->hasPseudoConstantQuals = true;
    return result;
}

static RelOptInfo *search_joins(PlannerInfo *root, int count, List *relations) {
    (void)count; /* the length of the list */
    return ps_run ? search_with_hints(root, relations) : search(root, relations);
}

void ps_install_hints(void) {
    previous_search = join_search_hook;
    join_search_hook = search_joins;
}
