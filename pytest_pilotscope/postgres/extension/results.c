/*
 * results.c: the result of a subquery, from the join of its relations or by UNION, INTERSECT and EXCEPT of other levels.
 */
#include "meaning.h"

#include "access/htup_details.h"
#include "catalog/pg_attribute.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* UNION, INTERSECT and EXCEPT: a tree with levels at its leaves. */
static bool append_operation(StringInfo json, PlannerInfo *root, Node *node) {
    static const char *const words[] = {
        [SETOP_UNION] = "UNION", [SETOP_INTERSECT] = "INTERSECT", [SETOP_EXCEPT] = "EXCEPT"};

    check_stack_depth();
    if (IsA(node, RangeTblRef)) {
        int index = ((RangeTblRef *)node)->rtindex;
        RelOptInfo *rel = index < root->simple_rel_array_size ? root->simple_rel_array[index] : NULL;

        if (rel == NULL || rel->subroot == NULL)
            return false;
        appendStringInfo(json, "%d", ps_level(rel->subroot)->id);
        return true;
    }
    appendStringInfo(json, "[\"%s%s\", ", words[((SetOperationStmt *)node)->op], ((SetOperationStmt *)node)->all ? " ALL" : "");
    if (!append_operation(json, root, ((SetOperationStmt *)node)->larg))
        return false;
    appendStringInfoString(json, ", ");
    if (!append_operation(json, root, ((SetOperationStmt *)node)->rarg))
        return false;
    appendStringInfoChar(json, ']');
    return true;
}

static void append_operations(StringInfo json, PlannerInfo *root) {
    int before = json->len;

    appendStringInfoString(json, "\"operation\": ");
    if (!root->hasRecursion && append_operation(json, root, root->parse->setOperations))
        return;
    json->len = before;
    json->data[before] = '\0';
    ps_append_string(json, "why", root->hasRecursion ? "a recursive WITH" : "a UNION that was planned in one piece");
}

static TargetEntry *sorted_target(const PsDescription *description, SortGroupClause *sort) {
    Query *query = description->root->parse;

    return get_sortgroupclause_tle(sort, query->setOperations ? query->targetList : description->root->processed_tlist);
}

/* Tell whether no row has NULL in a column. From PostgreSQL 18 on, a constraint with attnotnull may not hold for all rows yet. */
static bool is_not_null(const RelOptInfo *rel, Oid table, AttrNumber column) {
#if PG_VERSION_NUM >= 180000
    (void)table;
    return bms_is_member(column, rel->notnullattnums);
#else
    HeapTuple tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(table), Int16GetDatum(column));
    bool found = HeapTupleIsValid(tuple) && ((Form_pg_attribute)GETSTRUCT(tuple))->attnotnull;

    (void)rel;
    if (HeapTupleIsValid(tuple))
        ReleaseSysCache(tuple);
    return found;
#endif
}

static bool is_column(Node *node, const IndexOptInfo *index, int place) {
    while (IsA(node, RelabelType))
        node = (Node *)((RelabelType *)node)->arg;
    return IsA(node, Var) && ((Var *)node)->varno == (int)index->rel->relid && ((Var *)node)->varattno == index->indexkeys[place];
}

/* Tell whether an order has a column of an index, by the equality of the index. */
static bool orders_by(const PsDescription *description, List *order, const IndexOptInfo *index, int place) {
    ListCell *cell;

    foreach (cell, order) {
        SortGroupClause *sort = lfirst(cell);
        Node *key = (Node *)sorted_target(description, sort)->expr;

        if (is_column(key, index, place) && exprCollation(key) == index->indexcollations[place] &&
            op_in_opfamily(sort->eqop, index->opfamily[place]))
            return true;
    }
    return false;
}

/* Tell whether the joins make a column of an index equal to a constant, or to a column of relations of which the row is decided. */
static bool is_joined(const PsDescription *description, Relids decided, const IndexOptInfo *index, int place) {
    ListCell *cell, *member;

    foreach (cell, description->root->eq_classes) {
        EquivalenceClass *class = lfirst(cell);
        bool here = false;
        bool known = false;

        if (class->ec_merged || class->ec_has_volatile || class->ec_broken || class->ec_collation != index->indexcollations[place] ||
            !list_member_oid(class->ec_opfamilies, index->opfamily[place]))
            continue;
        foreach (member, class->ec_members) {
            EquivalenceMember *one = lfirst(member);

            if (one->em_is_child)
                continue;
            here = here || is_column((Node *)one->em_expr, index, place);
            known = known || one->em_is_const || (!bms_is_empty(one->em_relids) && bms_is_subset(one->em_relids, decided));
        }
        if (here && known)
            return true;
    }
    return false;
}

/* Tell whether an order decides the row of a relation: it has a unique key, or the joins give the key. */
static bool decides(const PsDescription *description, List *order, Relids decided, const RelOptInfo *rel) {
    RangeTblEntry *rte = description->root->simple_rte_array[rel->relid];
    ListCell *cell;

    if (rte->rtekind != RTE_RELATION || rte->inh)
        return false;
    foreach (cell, rel->indexlist) {
        IndexOptInfo *index = lfirst(cell);
        int place = 0;

        if (!index->unique || !index->immediate || index->indpred)
            continue;
        while (place < index->nkeycolumns && index->indexkeys[place] > 0 &&
               is_not_null(rel, rte->relid, (AttrNumber)index->indexkeys[place]) &&
               (orders_by(description, order, index, place) || is_joined(description, decided, index, place)))
            place++;
        if (place == index->nkeycolumns)
            return true;
    }
    return false;
}

/* The relations whose rows are in the result: not those that a semi or anti join only looks at. */
static Relids shown_relations(const PsDescription *description) {
    Relids shown = bms_copy(description->level->base);
    ListCell *cell;

    foreach (cell, description->root->join_info_list) {
        SpecialJoinInfo *join = lfirst(cell);

        if (join->jointype == JOIN_SEMI || join->jointype == JOIN_ANTI)
            shown = bms_del_members(shown, join->syn_righthand);
    }
    return shown;
}

/* Tell whether an order decides the rows of all relations: then no two rows are alike. */
static bool is_total(const PsDescription *description, List *order) {
    Relids open = shown_relations(description);
    Relids decided = NULL;
    bool more = true;

    while (more) {
        int number = -1;

        more = false;
        while ((number = bms_next_member(open, number)) >= 0)
            if (!bms_is_member(number, decided) && decides(description, order, decided, description->root->simple_rel_array[number])) {
                decided = bms_add_member(decided, number);
                more = true;
            }
    }
    return bms_is_subset(open, decided);
}

/* Tell whether every key of one list is in the other. */
static bool is_within(List *keys, List *order) {
    ListCell *key, *cell;

    foreach (key, keys) {
        bool found = false;

        foreach (cell, order)
            found = found || ((SortGroupClause *)lfirst(cell))->tleSortGroupRef == ((SortGroupClause *)lfirst(key))->tleSortGroupRef;
        if (!found)
            return false;
    }
    return true;
}

/* Tell whether a column is the same in any two rows that an order leaves side by side. */
static bool is_ordered(const PsDescription *description, TargetEntry *target, List *order) {
    ListCell *cell;

    if (IsA(target->expr, Const) && description->root->parse->setOperations == NULL)
        return true;
    foreach (cell, order)
        if (equal(sorted_target(description, lfirst(cell))->expr, target->expr))
            return true;
    return false;
}

static bool is_limit(Node *node) {
    return node && !(IsA(node, Const) && ((Const *)node)->constisnull);
}

static bool is_zero(Node *node) {
    return node && IsA(node, Const) && !((Const *)node)->constisnull && DatumGetInt64(((Const *)node)->constvalue) == 0;
}

/* Tell whether LIMIT or OFFSET take some of the rows. OFFSET 0 is a way to say that a subquery is planned on its own. */
static bool is_limited(const Query *query) {
    return is_limit(query->limitCount) || (is_limit(query->limitOffset) && !is_zero(query->limitOffset));
}

/* Tell whether a result has only some of its rows. */
static bool is_choice(const Query *query) {
    return is_limited(query) || query->hasDistinctOn;
}

/*
 * Tell whether it is decided which rows LIMIT and DISTINCT ON take, and does not depend on the plan.
 *
 * The keys of DISTINCT ON are no order for LIMIT: PostgreSQL 18 takes them in the order of an index.
 */
static bool is_decided(const PsDescription *description) {
    Query *query = description->root->parse;
    bool by_keys = query->hasDistinctOn && !is_limited(query);
    List *order = by_keys ? list_concat_copy(query->sortClause, query->distinctClause) : query->sortClause;
    bool ordered = true;
    ListCell *cell;

    if (contain_volatile_functions(query->limitCount) || contain_volatile_functions(query->limitOffset))
        return false;
    if (is_zero(query->limitCount))
        return true;
    if (query->limitOption == LIMIT_OPTION_WITH_TIES && query->limitOffset == NULL && !query->hasDistinctOn)
        return true;
    foreach (cell, query->setOperations ? query->targetList : description->root->processed_tlist) {
        TargetEntry *target = lfirst(cell);

        ordered = ordered && (target->resjunk || is_ordered(description, target, order));
    }
    if (ordered || query->setOperations || query->hasTargetSRFs)
        return ordered;
    if (query->groupClause || query->hasAggs || description->root->hasHavingQual)
        return is_within(query->groupClause, order);
    return is_total(description, order);
}

/* The reason why the result of a subquery cannot be written from its relations and clauses, or NULL. */
static const char *not_written(const PsDescription *description) {
    Query *query = description->root->parse;

    if (query->commandType != CMD_SELECT)
        return "INSERT, UPDATE or DELETE in WITH";
    if (query->hasWindowFuncs)
        return "a window function";
    if (query->groupingSets)
        return "GROUPING SETS";
    if (is_choice(query) && !is_decided(description))
        return "LIMIT or DISTINCT ON, and no order that decides which rows these are";
    return NULL;
}

/* A constant among the keys of GROUP BY must not look like the number of a column. */
static char *group_key(const PsDescription *description, Node *key) {
    char *sql = ps_text(description->texts, key, true);

    return IsA(key, Const) ? psprintf("COALESCE(%s)", sql) : sql;
}

static void append_keys(StringInfo json, const char *name, const PsDescription *description, List *keys) {
    ListCell *cell;

    appendStringInfo(json, "\"%s\": [", name);
    foreach (cell, keys) {
        TargetEntry *target = get_sortgroupclause_tle(lfirst(cell), description->root->processed_tlist);

        appendStringInfoString(json, cell == list_head(keys) ? "" : ", ");
        escape_json(json, group_key(description, (Node *)target->expr));
    }
    appendStringInfoChar(json, ']');
}

/* The direction of a key, or NULL if it is sorted by an operator of its own. */
static const char *direction(const SortGroupClause *sort, Oid type) {
    TypeCacheEntry *known = lookup_type_cache(type, TYPECACHE_LT_OPR | TYPECACHE_GT_OPR);

    if (sort->sortop != known->lt_opr && sort->sortop != known->gt_opr)
        return NULL;
    return psprintf(" %s NULLS %s", sort->sortop == known->lt_opr ? "ASC" : "DESC", sort->nulls_first ? "FIRST" : "LAST");
}

/*
 * Append ORDER BY: expressions, or for UNION and the like the numbers of columns. Return false if that cannot be written.
 *
 * A constant orders nothing, and cannot be written beside DISTINCT, which wants the expressions of the select list.
 */
static bool append_order(StringInfo json, const PsDescription *description) {
    Query *query = description->root->parse;
    const char *separator = "";
    ListCell *cell;

    appendStringInfoString(json, "\"order\": [");
    foreach (cell, query->sortClause) {
        TargetEntry *target = sorted_target(description, lfirst(cell));
        const char *way = direction(lfirst(cell), exprType((Node *)target->expr));
        char *key = query->setOperations ? psprintf("%d", target->resno) : group_key(description, (Node *)target->expr);

        if (way == NULL)
            return false;
        if (IsA(target->expr, Const) && query->distinctClause && !query->hasDistinctOn)
            continue;
        appendStringInfoString(json, separator);
        escape_json(json, psprintf("%s%s", key, way));
        separator = ", ";
    }
    appendStringInfoChar(json, ']');
    return true;
}

/* Append which rows are taken: ORDER BY, LIMIT and OFFSET. Return false if they cannot be written. */
static bool append_choice(StringInfo json, const PsDescription *description) {
    Query *query = description->root->parse;

    appendStringInfoString(json, ", ");
    if (!append_order(json, description))
        return false;
    if (is_limit(query->limitCount)) {
        appendStringInfoString(json, ", ");
        ps_append_string(json, query->limitOption == LIMIT_OPTION_WITH_TIES ? "ties" : "limit",
                         ps_text(description->texts, query->limitCount, true));
    }
    if (is_limit(query->limitOffset)) {
        appendStringInfoString(json, ", ");
        ps_append_string(json, "offset", ps_text(description->texts, query->limitOffset, true));
    }
    return true;
}

/* Add the relations of the columns in an expression. */
static bool add_relids(Node *node, Relids *relids) {
    if (node == NULL)
        return false;
    if (IsA(node, Var) && ((Var *)node)->varlevelsup == 0)
        *relids = bms_add_member(*relids, ((Var *)node)->varno);
    return expression_tree_walker(node, add_relids, relids);
}

/* Append the columns of a result, and the groups and conditions that they are computed with. */
static void append_columns(StringInfo json, const PsDescription *description) {
    Query *query = description->root->parse;
    List *targets = NIL;
    List *all = list_make3(query->havingQual, query->limitCount, query->limitOffset);
    Relids relids = NULL;
    ListCell *cell;

    foreach (cell, description->root->processed_tlist) {
        TargetEntry *target = lfirst_node(TargetEntry, cell);

        all = lappend(all, target->expr);
        if (!target->resjunk)
            targets = lappend(targets, target->expr);
    }
    ps_append_texts(json, "targets", description, targets);
    appendStringInfoString(json, ", ");
    add_relids((Node *)all, &relids);
    ps_append_relids(json, "rels", description, relids);
    appendStringInfoString(json, ", ");
    append_keys(json, "group", description, query->groupClause);
    appendStringInfoString(json, ", ");
    ps_append_texts(json, "having", description, (List *)query->havingQual);
    if (bms_is_empty(description->level->base)) {
        appendStringInfoString(json, ", ");
        ps_append_texts(json, "where", description, (List *)query->jointree->quals);
    }
    appendStringInfoString(json, ", ");
    append_keys(json, "distinct_on", description, query->hasDistinctOn ? query->distinctClause : NIL);
    appendStringInfo(json, ", \"distinct\": %s, \"single\": %s, \"volatility\": \"%c\"",
                     query->distinctClause && !query->hasDistinctOn ? "true" : "false",
                     (query->hasAggs || description->root->hasHavingQual) && query->groupClause == NIL ? "true" : "false",
                     ps_volatility((Node *)all));
}

/* Describe the result of a subquery. One without relations has its conditions here. */
void ps_append_result(StringInfo json, const PsDescription *description) {
    Query *query = description->root->parse;
    const char *why = not_written(description);
    int before;

    appendStringInfoString(json, ",\n\"result\": {");
    before = json->len;
    if (why == NULL && query->setOperations)
        append_operations(json, description->root);
    else if (why == NULL)
        append_columns(json, description);
    if (why == NULL && is_choice(query) && !append_choice(json, description)) {
        json->len = before;
        why = "ORDER BY with an operator of its own";
    }
    if (why)
        ps_append_string(json, "why", why);
    appendStringInfoChar(json, '}');
}
