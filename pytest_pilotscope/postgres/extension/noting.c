/*
 * noting.c: the joins that make each set of relations, noted while the planner searches.
 *
 * A set can be joined from many pairs of inputs, all with the same rows. A few pairs are enough to say what the set means;
 * several are kept because the meaning of one input may have no SQL.
 */
#include "pilotscope.h"

#include "optimizer/restrictinfo.h"

/*
 * The branches of UNION ALL in FROM that became members of a base relation. They are copied before paths are made: at the end
 * of planning the planner forgets which expressions stand for the columns of the relation.
 */
List *ps_note_branches(PsLevel *level) {
    List *branches = NIL;
    ListCell *cell;

    foreach (cell, level->root->append_rel_list) {
        AppendRelInfo *member = lfirst_node(AppendRelInfo, cell);

        if (bms_is_member((int)member->parent_relid, level->base) &&
            level->root->simple_rte_array[member->parent_relid]->rtekind == RTE_SUBQUERY)
            branches = lappend(branches, memcpy(palloc(sizeof(AppendRelInfo)), member, sizeof(AppendRelInfo)));
    }
    return branches;
}

bool ps_is_branch(PsLevel *level, int index) {
    ListCell *cell;

    foreach (cell, level->branches)
        if ((int)((AppendRelInfo *)lfirst(cell))->child_relid == index)
            return true;
    return false;
}

#define MOST_PAIRS 3 /* of those that are not unique joins; one unique join is kept beside them */

static bool is_noted(JoinType kind) {
    return kind == JOIN_INNER || kind == JOIN_LEFT || kind == JOIN_FULL || kind == JOIN_SEMI || kind == JOIN_ANTI ||
           kind == JOIN_UNIQUE_INNER;
}

/* Tell whether a pair adds to those that are there. */
static bool is_wanted(const PsSet *set, JoinType kind, Relids outer) {
    int alike = 0;
    ListCell *cell;

    foreach (cell, set->pairs) {
        PsPair *pair = lfirst(cell);

        if (pair->kind == kind && bms_equal(pair->outer, outer))
            return false;
        alike += (pair->kind == JOIN_UNIQUE_INNER) == (kind == JOIN_UNIQUE_INNER);
    }
    return alike < (kind == JOIN_UNIQUE_INNER ? 1 : MOST_PAIRS);
}

/*
 * Note one pair of inputs. The planner calls the hook with each join first in a form that is noted, so the reversed forms
 * (RIGHT, RIGHT_SEMI, RIGHT_ANTI, UNIQUE_OUTER) are not needed. The clauses live as long as the planner run; the lists and
 * sets that hold them may not.
 */
void ps_note_join(PsSet *set, PlannerInfo *root, RelOptInfo *joinrel, RelOptInfo *outer, RelOptInfo *inner, JoinType kind,
                  JoinPathExtraData *extra) {
    Relids outer_relids = ps_base_part(root, outer);
    MemoryContext before;
    PsPair *pair;
    ListCell *cell;

    if (!is_noted(kind) || !is_wanted(set, kind, outer_relids))
        return;
    before = MemoryContextSwitchTo(ps_run->context);
    pair = palloc0(sizeof(PsPair));
    pair->kind = kind;
    pair->outer = bms_copy(outer_relids);
    pair->inner = bms_copy(ps_base_part(root, inner));
    foreach (cell, extra->restrictlist) {
        RestrictInfo *clause = lfirst_node(RestrictInfo, cell);

        if (IS_OUTER_JOIN(kind) && RINFO_IS_PUSHED_DOWN(clause, joinrel->relids))
            pair->where = lappend(pair->where, clause);
        else
            pair->on = lappend(pair->on, clause);
    }
    if (kind == JOIN_UNIQUE_INNER)
        pair->unique = list_copy(extra->sjinfo->semi_rhs_exprs);
    set->pairs = lappend(set->pairs, pair);
    MemoryContextSwitchTo(before);
}
