/*
 * sources.c: the relations of a level: tables, subqueries, branches of UNION ALL, functions, lists of values.
 */
#include "meaning.h"

#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/pathnode.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

/*
 * Tell whether counting a table would leave rows out that the statement sees: a view reads it with the rights of its owner, and
 * the rows that this user may see are decided by policies.
 */
static bool is_seen_otherwise(const RelOptInfo *rel, const RangeTblEntry *rte) {
    return OidIsValid(rel->userid) && rel->userid != GetUserId() && check_enable_rls(rte->relid, InvalidOid, true) == RLS_ENABLED;
}

static void append_table(StringInfo json, const RangeTblEntry *rte) {
    char *name = get_rel_name(rte->relid);
    char *schema = get_namespace_name(get_rel_namespace(rte->relid));

    ps_append_string(json, "table", RelationIsVisible(rte->relid) ? name : psprintf("%s.%s", schema, name));
    appendStringInfoString(json, ", ");
    ps_append_string(json, "source",
                  psprintf("%s%s", !rte->inh && has_subclass(rte->relid) ? "ONLY " : "", quote_qualified_identifier(schema, name)));
}

static PlannerInfo *cte_root(PlannerInfo *root, const RangeTblEntry *rte) {
    int number = 0;
    ListCell *cell;

    for (Index up = rte->ctelevelsup; up > 0 && root; up--)
        root = root->parent_root;
    if (root == NULL || rte->self_reference)
        return NULL;
    foreach (cell, root->parse->cteList) {
        if (strcmp(lfirst_node(CommonTableExpr, cell)->ctename, rte->ctename) == 0) {
            int plan = number < list_length(root->cte_plan_ids) ? list_nth_int(root->cte_plan_ids, number) : 0;

            return plan > 0 ? list_nth(root->glob->subroots, plan - 1) : NULL;
        }
        number++;
    }
    return NULL;
}

/* Note the columns of this level in a subquery of its FROM. */
static void tell_parameters(const PsDescription *description, const RelOptInfo *rel) {
    ListCell *cell;

    foreach (cell, rel->subplan_params) {
        PlannerParamItem *parameter = lfirst(cell);

        ps_tell_parameter(description->texts, parameter->paramId, parameter->item);
    }
}

/*
 * One branch of a UNION ALL in FROM that became a member of the relation: a table, or a subquery with a level of its own. The
 * conditions on the relation are its filters, except those that were pushed into the subquery.
 */
static bool append_branch(StringInfo json, PsDescription *description, const AppendRelInfo *member) {
    int index = (int)member->child_relid;
    RangeTblEntry *rte = description->root->simple_rte_array[index];
    RelOptInfo *rel = description->root->simple_rel_array[index];
    bool is_table = rte->rtekind == RTE_RELATION && rte->tablesample == NULL && rel && !is_seen_otherwise(rel, rte);
    List *conditions = NIL;
    ListCell *cell;

    if (rel == NULL || !(is_table || (rte->rtekind == RTE_SUBQUERY && rel->subroot)))
        return false;
    if (IS_DUMMY_REL(rel))
        conditions = list_make1(makeBoolConst(false, false));
    else
        foreach (cell, rel->baserestrictinfo)
            conditions = lappend(conditions, lfirst_node(RestrictInfo, cell)->clause);
    appendStringInfoChar(json, '{');
    ps_append_string(json, "name", ps_relation_name(description->level, index));
    appendStringInfoString(json, ", ");
    if (is_table)
        append_table(json, rte);
    else {
        tell_parameters(description, rel);
        appendStringInfo(json, "\"level\": %d, \"columns\": %d", ps_level(rel->subroot)->id, list_length(rte->eref->colnames));
    }
    appendStringInfoString(json, ", ");
    ps_append_texts(json, "targets", description, member->translated_vars);
    appendStringInfoString(json, ", ");
    ps_append_texts(json, "filters", description, conditions);
    appendStringInfoChar(json, '}');
    return true;
}

/* A subquery that is not planned, since the conditions on it contradict each other. */
static bool is_unplanned(const PsDescription *description, const AppendRelInfo *member) {
    RelOptInfo *rel = description->root->simple_rel_array[member->child_relid];

    return rel && rel->rtekind == RTE_SUBQUERY && rel->subroot == NULL && IS_DUMMY_REL(rel);
}

static void append_union(StringInfo json, PsDescription *description, int index) {
    int before = json->len;
    ListCell *cell;

    appendStringInfoString(json, "\"branches\": [");
    foreach (cell, description->level->branches) {
        AppendRelInfo *member = lfirst(cell);

        if ((int)member->parent_relid != index || is_unplanned(description, member))
            continue;
        appendStringInfoString(json, json->data[json->len - 1] == '[' ? "" : ", ");
        if (!append_branch(json, description, member)) {
            json->len = before;
            json->data[before] = '\0';
            ps_append_string(json, "why", "UNION ALL of nested queries");
            return;
        }
    }
    appendStringInfoChar(json, ']');
    if (json->data[json->len - 2] == '[') {
        json->len = before;
        json->data[before] = '\0';
        ps_append_string(json, "why", "UNION ALL of nothing that was planned");
    }
}

/* A subquery in FROM: its level, and the columns of this level in it. */
static void append_subquery(StringInfo json, PsDescription *description, const RelOptInfo *rel, const RangeTblEntry *rte) {
    PlannerInfo *subroot = rte->rtekind == RTE_CTE ? cte_root(description->root, rte) : rel->subroot;

    if (subroot == NULL) {
        ps_append_string(json, "why", rte->rtekind == RTE_CTE ? "a recursive WITH" : "a subquery that was not planned");
        return;
    }
    if (rte->rtekind == RTE_SUBQUERY)
        tell_parameters(description, rel);
    appendStringInfo(json, "\"level\": %d", ps_level(subroot)->id);
}

static void append_functions(StringInfo json, const PsDescription *description, const RangeTblEntry *rte) {
    StringInfoData item;
    ListCell *cell;

    initStringInfo(&item);
    appendStringInfoString(&item, "ROWS FROM(");
    foreach (cell, rte->functions) {
        RangeTblFunction *function = lfirst(cell);

        if (function->funccolnames) {
            ps_append_string(json, "why", "a function with a list of column definitions");
            return;
        }
        appendStringInfoString(&item, cell == list_head(rte->functions) ? "" : ", ");
        appendStringInfoString(&item, ps_text(description->texts, function->funcexpr, true));
    }
    appendStringInfoString(&item, rte->funcordinality ? ") WITH ORDINALITY" : ")");
    ps_append_string(json, "item", item.data);
    appendStringInfo(json, ", \"volatility\": \"%c\"", ps_volatility((Node *)rte->functions));
}

static void append_values(StringInfo json, const PsDescription *description, const RangeTblEntry *rte) {
    StringInfoData item;
    ListCell *row, *value;

    initStringInfo(&item);
    appendStringInfoString(&item, "(VALUES ");
    foreach (row, rte->values_lists) {
        appendStringInfoString(&item, row == list_head(rte->values_lists) ? "(" : ", (");
        foreach (value, (List *)lfirst(row)) {
            appendStringInfoString(&item, value == list_head((List *)lfirst(row)) ? "" : ", ");
            appendStringInfoString(&item, ps_text(description->texts, lfirst(value), true));
        }
        appendStringInfoChar(&item, ')');
    }
    appendStringInfoChar(&item, ')');
    ps_append_string(json, "item", item.data);
    appendStringInfo(json, ", \"volatility\": \"%c\"", ps_volatility((Node *)rte->values_lists));
}

static void append_source(StringInfo json, PsDescription *description, const RelOptInfo *rel, const RangeTblEntry *rte) {
    switch (rte->rtekind) {
    case RTE_RELATION:
        if (rte->tablesample)
            ps_append_string(json, "why", "TABLESAMPLE");
        else if (is_seen_otherwise(rel, rte))
            ps_append_string(json, "why", "a table with row security that a view reads as its owner");
        else
            append_table(json, rte);
        break;
    case RTE_SUBQUERY:
    case RTE_CTE:
        if (rte->inh)
            append_union(json, description, (int)rel->relid);
        else
            append_subquery(json, description, rel, rte);
        break;
    case RTE_FUNCTION:
        append_functions(json, description, rte);
        break;
    case RTE_VALUES:
        append_values(json, description, rte);
        break;
    case RTE_RESULT:
        ps_append_string(json, "item", "(SELECT)");
        break;
    default:
        ps_append_string(json, "why", rte->rtekind == RTE_TABLEFUNC ? "XMLTABLE or JSON_TABLE" : "a transition table");
        break;
    }
    if (rte->rtekind != RTE_RELATION && rte->rtekind != RTE_RESULT)
        appendStringInfo(json, ", \"columns\": %d", list_length(rte->eref->colnames));
}

static void append_filters(StringInfo json, PsDescription *description, const RelOptInfo *rel, RangeTblEntry *rte) {
    ListCell *cell;

    appendStringInfoString(json, "\"filters\": [");
    foreach (cell, rel->baserestrictinfo) {
        RestrictInfo *clause = lfirst(cell);

        appendStringInfo(json, "%s{\"clause\": %d, ", cell == list_head(rel->baserestrictinfo) ? "" : ", ",
                         ps_clause_number(description, clause));
        ps_append_filter(json, description->texts, rte, (Node *)clause->clause);
        appendStringInfoChar(json, '}');
    }
    appendStringInfoChar(json, ']');
}

void ps_append_relation(StringInfo json, PsDescription *description, int index) {
    RelOptInfo *rel = description->root->simple_rel_array[index];
    RangeTblEntry *rte = description->root->simple_rte_array[index];

    appendStringInfo(json, "%s{", description->numbers[index] ? ",\n " : "");
    ps_append_string(json, "alias", description->level->aliases[index]);
    appendStringInfoString(json, ", ");
    ps_append_string(json, "name", ps_relation_name(description->level, index));
    appendStringInfo(json, ", \"rows\": %s, ", float8out_internal(rel->rows));
    append_source(json, description, rel, rte);
    appendStringInfoString(json, ", ");
    ps_append_relids(json, "lateral", description, rel->lateral_relids);
    appendStringInfoString(json, ", ");
    append_filters(json, description, rel, rte);
    appendStringInfoString(json, IS_DUMMY_REL(rel) ? ", \"empty\": true}" : "}");
}

