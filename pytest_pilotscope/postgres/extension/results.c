/*
 * results.c: the result of a subquery, from the join of its relations or by UNION, INTERSECT and EXCEPT of other levels.
 */
#include "meaning.h"

#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/json.h"

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

/* The reason why the result of a subquery cannot be written from its relations and clauses, or NULL. */
static const char *not_written(const Query *query) {
    if (query->commandType != CMD_SELECT)
        return "INSERT, UPDATE or DELETE in WITH";
    if (query->limitCount || query->limitOffset)
        return "LIMIT";
    if (query->hasWindowFuncs)
        return "a window function";
    if (query->hasDistinctOn)
        return "DISTINCT ON";
    if (query->groupingSets)
        return "GROUPING SETS";
    if (query->hasTargetSRFs)
        return "a function that returns sets in the select list";
    return NULL;
}

/* A constant among the keys of GROUP BY must not look like the number of a column. */
static char *group_key(const PsDescription *description, Node *key) {
    char *sql = ps_text(description->texts, key, true);

    return IsA(key, Const) ? psprintf("COALESCE(%s)", sql) : sql;
}

static void append_groups(StringInfo json, const PsDescription *description, List *keys) {
    ListCell *cell;

    appendStringInfoString(json, "\"group\": [");
    foreach (cell, keys) {
        TargetEntry *target = get_sortgroupclause_tle(lfirst(cell), description->root->processed_tlist);

        appendStringInfoString(json, cell == list_head(keys) ? "" : ", ");
        escape_json(json, group_key(description, (Node *)target->expr));
    }
    appendStringInfoChar(json, ']');
}

/* Add the relations of the columns in an expression. */
static bool add_relids(Node *node, Relids *relids) {
    if (node == NULL)
        return false;
    if (IsA(node, Var) && ((Var *)node)->varlevelsup == 0)
        *relids = bms_add_member(*relids, ((Var *)node)->varno);
    return expression_tree_walker(node, add_relids, relids);
}

/* Describe the result of a subquery. One without relations has its conditions here. */
void ps_append_result(StringInfo json, const PsDescription *description) {
    Query *query = description->root->parse;
    const char *why = not_written(query);
    List *targets = NIL;
    List *having = (List *)query->havingQual;
    Relids relids = NULL;
    ListCell *cell;

    appendStringInfoString(json, ",\n\"result\": {");
    if (why)
        ps_append_string(json, "why", why);
    else if (query->setOperations)
        append_operations(json, description->root);
    else {
        foreach (cell, description->root->processed_tlist) {
            TargetEntry *target = lfirst_node(TargetEntry, cell);

            if (!target->resjunk)
                targets = lappend(targets, target->expr);
        }
        ps_append_texts(json, "targets", description, targets);
        appendStringInfoString(json, ", ");
        add_relids((Node *)targets, &relids);
        add_relids((Node *)having, &relids);
        ps_append_relids(json, "rels", description, relids);
        appendStringInfoString(json, ", ");
        append_groups(json, description, query->groupClause);
        appendStringInfoString(json, ", ");
        ps_append_texts(json, "having", description, having);
        if (bms_is_empty(description->level->base)) {
            appendStringInfoString(json, ", ");
            ps_append_texts(json, "where", description, (List *)query->jointree->quals);
        }
        appendStringInfo(json, ", \"distinct\": %s, \"single\": %s, \"volatility\": \"%c\"",
                         query->distinctClause ? "true" : "false",
                         (query->hasAggs || description->root->hasHavingQual) && query->groupClause == NIL ? "true" : "false",
                         ps_volatility((Node *)list_concat_copy(targets, having)));
    }
    appendStringInfoChar(json, '}');
}

