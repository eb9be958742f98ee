/*
 * meaning.c: what each set of relations means, as JSON, from the planner's own records at the end of planning.
 *
 *   {"levels": [level, ...], "parameters": {"1": ...}, "subplans": {"2": ...}}
 *
 * A level has its relations, the members of its equivalence classes, its clauses, placeholders and sets, and for a subquery
 * what it returns. Relations are numbered from 0 within their level. A set names the pairs of inputs that make it, with the
 * numbers of the clauses that join them; whoever counts it puts its SQL together from that. docs/steering.md has the format.
 */
#include "pilotscope.h"

#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/tlist.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

static char *report = NULL;

void ps_forget_meaning(void) {
    if (report)
        pfree(report);
    report = NULL;
}

const char *ps_show_meaning(void) {
    return report ? report : "{}";
}

/* A level while it is described. Clauses and members get their numbers when they are first met. */
typedef struct Description {
    PsLevel *level;
    PlannerInfo *root;
    PsTexts *texts;
    int *numbers; /* of relations, by range table index */
    List *clauses;
    List *members; /* of EquivalenceMember */
    StringInfoData clause_list;
    StringInfoData member_list;
} Description;

static void append_string(StringInfo json, const char *name, const char *value) {
    appendStringInfo(json, "\"%s\": ", name);
    escape_json(json, value);
}

static void append_relids(StringInfo json, const char *name, const Description *description, Relids relids) {
    const char *separator = "";
    int index = -1;

    appendStringInfo(json, "\"%s\": [", name);
    while ((index = bms_next_member(relids, index)) >= 0) {
        if (!bms_is_member(index, description->level->base))
            continue; /* an outer join */
        appendStringInfo(json, "%s%d", separator, description->numbers[index]);
        separator = ", ";
    }
    appendStringInfoChar(json, ']');
}

/* Append texts of expressions as a list of strings. */
static void append_texts(StringInfo json, const char *name, const Description *description, List *expressions) {
    ListCell *cell;

    appendStringInfo(json, "\"%s\": [", name);
    foreach (cell, expressions) {
        appendStringInfoString(json, cell == list_head(expressions) ? "" : ", ");
        escape_json(json, ps_text(description->texts, lfirst(cell), true));
    }
    appendStringInfoChar(json, ']');
}

/* Number a member of an equivalence class. */
static int member_number(Description *description, EquivalenceClass *class, EquivalenceMember *member) {
    StringInfo json = &description->member_list;
    int number = 0;
    ListCell *cell;

    foreach (cell, description->members) {
        if (lfirst(cell) == member)
            return number;
        number++;
    }
    description->members = lappend(description->members, member);
    appendStringInfo(json, "%s{", number ? ",\n " : "");
    append_relids(json, "rels", description, member->em_relids);
    appendStringInfo(json, ", \"type\": %u, ", exprType((Node *)member->em_expr));
    append_string(json, "sql", ps_text(description->texts, (Node *)member->em_expr, true));
    ps_append_key(json, description->level, class, member);
    appendStringInfoChar(json, '}');
    return number;
}

static EquivalenceClass *final_class(EquivalenceClass *class) {
    while (class && class->ec_merged)
        class = class->ec_merged;
    return class;
}

/* The class that an equality comes from. In a derived clause it is the parent, in one of the query both sides have it. */
static EquivalenceClass *class_of(const RestrictInfo *clause) {
    EquivalenceClass *class = final_class(clause->left_ec);

    if (clause->left_em == NULL || clause->right_em == NULL || class == NULL || class != final_class(clause->right_ec))
        return NULL;
    return class;
}

/* Number a clause, and describe it when it is met first. Any member of its class that is computable may stand for a side. */
static int clause_number(Description *description, RestrictInfo *clause) {
    StringInfo json = &description->clause_list;
    EquivalenceClass *class = class_of(clause);
    int number = 0;
    ListCell *cell;
    StringInfoData text;

    foreach (cell, description->clauses) {
        if (lfirst(cell) == clause)
            return number;
        number++;
    }
    description->clauses = lappend(description->clauses, clause);
    initStringInfo(&text);
    appendStringInfo(&text, "%s{", number ? ",\n " : "");
    append_string(&text, "sql", ps_text(description->texts, (Node *)clause->clause, true));
    appendStringInfoString(&text, ", ");
    append_relids(&text, "rels", description, clause->clause_relids);
    appendStringInfo(&text, ", \"volatility\": \"%c\"", ps_volatility((Node *)clause->clause));
    if (class) {
        appendStringInfoString(&text, ", \"class\": [");
        foreach (cell, class->ec_members) {
            EquivalenceMember *member = lfirst(cell);

            if (member->em_is_child || member->em_is_const)
                continue;
            appendStringInfo(&text, "%s%d", text.data[text.len - 1] == '[' ? "" : ", ",
                             member_number(description, class, member));
        }
        appendStringInfo(&text, "], \"left\": %d, \"right\": %d", member_number(description, class, clause->left_em),
                         member_number(description, class, clause->right_em));
    }
    appendStringInfoChar(&text, '}');
    appendStringInfoString(json, text.data);
    return number;
}

static void append_clauses(StringInfo json, const char *name, Description *description, List *clauses) {
    ListCell *cell;

    appendStringInfo(json, "\"%s\": [", name);
    foreach (cell, clauses)
        appendStringInfo(json, "%s%d", cell == list_head(clauses) ? "" : ", ", clause_number(description, lfirst(cell)));
    appendStringInfoChar(json, ']');
}

static void append_table(StringInfo json, const RangeTblEntry *rte) {
    char *name = get_rel_name(rte->relid);
    char *schema = get_namespace_name(get_rel_namespace(rte->relid));

    append_string(json, "table", RelationIsVisible(rte->relid) ? name : psprintf("%s.%s", schema, name));
    appendStringInfoString(json, ", ");
    append_string(json, "source",
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

/* One branch of a UNION ALL in FROM that became a member of the relation: a table, or a subquery with a level of its own. */
static bool append_branch(StringInfo json, Description *description, const AppendRelInfo *member) {
    int index = (int)member->child_relid;
    RangeTblEntry *rte = description->root->simple_rte_array[index];
    RelOptInfo *rel = description->root->simple_rel_array[index];
    bool is_table = rte->rtekind == RTE_RELATION && rte->tablesample == NULL;

    if (rel == NULL || !(is_table || (rte->rtekind == RTE_SUBQUERY && rel->subroot)))
        return false;
    appendStringInfoChar(json, '{');
    append_string(json, "name", ps_relation_name(description->level, index));
    appendStringInfoString(json, ", ");
    if (is_table)
        append_table(json, rte);
    else
        appendStringInfo(json, "\"level\": %d, \"columns\": %d", ps_level(rel->subroot)->id, list_length(rte->eref->colnames));
    appendStringInfoString(json, ", ");
    append_texts(json, "targets", description, member->translated_vars);
    appendStringInfoChar(json, '}');
    return true;
}

static void append_union(StringInfo json, Description *description, int index) {
    int before = json->len;
    ListCell *cell;

    appendStringInfoString(json, "\"branches\": [");
    foreach (cell, description->level->branches) {
        AppendRelInfo *member = lfirst(cell);

        if ((int)member->parent_relid != index)
            continue;
        appendStringInfoString(json, json->data[json->len - 1] == '[' ? "" : ", ");
        if (!append_branch(json, description, member)) {
            json->len = before;
            json->data[before] = '\0';
            append_string(json, "why", "UNION ALL of nested queries");
            return;
        }
    }
    appendStringInfoChar(json, ']');
}

/* A subquery in FROM: its level, and what of this level it is correlated by. */
static void append_subquery(StringInfo json, Description *description, const RelOptInfo *rel, const RangeTblEntry *rte) {
    PlannerInfo *subroot = rte->rtekind == RTE_CTE ? cte_root(description->root, rte) : rel->subroot;
    ListCell *cell;

    if (subroot == NULL) {
        append_string(json, "why", rte->rtekind == RTE_CTE ? "a recursive WITH" : "a subquery that was not planned");
        return;
    }
    if (rte->rtekind == RTE_SUBQUERY) {
        foreach (cell, rel->subplan_params) {
            PlannerParamItem *parameter = lfirst(cell);

            ps_tell_parameter(description->texts, parameter->paramId, parameter->item);
        }
    }
    appendStringInfo(json, "\"level\": %d", ps_level(subroot)->id);
}

static void append_functions(StringInfo json, const Description *description, const RangeTblEntry *rte) {
    StringInfoData item;
    ListCell *cell;

    initStringInfo(&item);
    appendStringInfoString(&item, "ROWS FROM(");
    foreach (cell, rte->functions) {
        RangeTblFunction *function = lfirst(cell);

        if (function->funccolnames) {
            append_string(json, "why", "a function with a list of column definitions");
            return;
        }
        appendStringInfoString(&item, cell == list_head(rte->functions) ? "" : ", ");
        appendStringInfoString(&item, ps_text(description->texts, function->funcexpr, true));
    }
    appendStringInfoString(&item, rte->funcordinality ? ") WITH ORDINALITY" : ")");
    append_string(json, "item", item.data);
    appendStringInfo(json, ", \"volatility\": \"%c\"", ps_volatility((Node *)rte->functions));
}

static void append_values(StringInfo json, const Description *description, const RangeTblEntry *rte) {
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
    append_string(json, "item", item.data);
    appendStringInfo(json, ", \"volatility\": \"%c\"", ps_volatility((Node *)rte->values_lists));
}

static void append_source(StringInfo json, Description *description, const RelOptInfo *rel, const RangeTblEntry *rte) {
    switch (rte->rtekind) {
    case RTE_RELATION:
        if (rte->tablesample)
            append_string(json, "why", "TABLESAMPLE");
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
        append_string(json, "item", "(SELECT)");
        break;
    default:
        append_string(json, "why", rte->rtekind == RTE_TABLEFUNC ? "XMLTABLE or JSON_TABLE" : "a transition table");
        break;
    }
    if (rte->rtekind != RTE_RELATION && rte->rtekind != RTE_RESULT)
        appendStringInfo(json, ", \"columns\": %d", list_length(rte->eref->colnames));
}

static void append_filters(StringInfo json, Description *description, const RelOptInfo *rel, RangeTblEntry *rte) {
    ListCell *cell;

    appendStringInfoString(json, "\"filters\": [");
    foreach (cell, rel->baserestrictinfo) {
        RestrictInfo *clause = lfirst(cell);

        appendStringInfo(json, "%s{\"clause\": %d, ", cell == list_head(rel->baserestrictinfo) ? "" : ", ",
                         clause_number(description, clause));
        ps_append_filter(json, description->texts, rte, (Node *)clause->clause);
        appendStringInfoChar(json, '}');
    }
    appendStringInfoChar(json, ']');
}

static void append_relation(StringInfo json, Description *description, int index) {
    RelOptInfo *rel = description->root->simple_rel_array[index];
    RangeTblEntry *rte = description->root->simple_rte_array[index];

    appendStringInfo(json, "%s{", description->numbers[index] ? ",\n " : "");
    append_string(json, "alias", description->level->aliases[index]);
    appendStringInfoString(json, ", ");
    append_string(json, "name", ps_relation_name(description->level, index));
    appendStringInfo(json, ", \"rows\": %s, ", float8out_internal(rel->rows));
    append_source(json, description, rel, rte);
    appendStringInfoString(json, ", ");
    append_relids(json, "lateral", description, rel->lateral_relids);
    appendStringInfoString(json, ", ");
    append_filters(json, description, rel, rte);
    appendStringInfoString(json, IS_DUMMY_REL(rel) ? ", \"empty\": true}" : "}");
}

static void append_placeholders(StringInfo json, const Description *description) {
    ListCell *cell;

    appendStringInfoString(json, "\"placeholders\": [");
    foreach (cell, description->root->placeholder_list) {
        PlaceHolderInfo *placeholder = lfirst(cell);

        appendStringInfo(json, "%s{\"id\": %u, ", cell == list_head(description->root->placeholder_list) ? "" : ",\n ",
                         placeholder->phid);
        append_relids(json, "at", description, placeholder->ph_eval_at);
        appendStringInfoString(json, ", ");
        append_relids(json, "lateral", description, placeholder->ph_lateral);
        appendStringInfo(json, ", \"volatility\": \"%c\", ", ps_volatility((Node *)placeholder->ph_var->phexpr));
        append_string(json, "sql", ps_text(description->texts, (Node *)placeholder->ph_var->phexpr, true));
        appendStringInfoChar(json, '}');
    }
    appendStringInfoChar(json, ']');
}

static const char *join_name(JoinType kind) {
    switch (kind) {
    case JOIN_INNER:
        return "INNER";
    case JOIN_LEFT:
        return "LEFT";
    case JOIN_FULL:
        return "FULL";
    case JOIN_SEMI:
        return "SEMI";
    case JOIN_ANTI:
        return "ANTI";
    default:
        return "UNIQUE";
    }
}

static void append_pair(StringInfo json, Description *description, const PsPair *pair) {
    appendStringInfo(json, "{\"kind\": \"%s\", ", join_name(pair->kind));
    append_relids(json, "outer", description, pair->outer);
    appendStringInfoString(json, ", ");
    append_relids(json, "inner", description, pair->inner);
    appendStringInfoString(json, ", ");
    append_clauses(json, "on", description, pair->on);
    if (pair->where) {
        appendStringInfoString(json, ", ");
        append_clauses(json, "where", description, pair->where);
    }
    if (pair->unique) {
        appendStringInfoString(json, ", ");
        append_texts(json, "unique", description, pair->unique);
    }
    appendStringInfoChar(json, '}');
}

static void append_set(StringInfo json, Description *description, Relids relids, double rows, const PsSet *set, bool empty) {
    ListCell *cell;

    appendStringInfo(json, "%s{", json->data[json->len - 1] == '[' ? "" : ",\n ");
    append_relids(json, "rels", description, relids);
    appendStringInfo(json, ", \"rows\": %s, \"pairs\": [", float8out_internal(rows));
    if (set && !empty) {
        foreach (cell, set->pairs) {
            appendStringInfoString(json, cell == list_head(set->pairs) ? "" : ", ");
            append_pair(json, description, lfirst(cell));
        }
    }
    appendStringInfoString(json, empty ? "], \"empty\": true}" : "]}");
}

/* The joins. Under GEQO the planner keeps only those of the final tree; the others were noted. */
static void append_sets(StringInfo json, Description *description) {
    PsLevel *level = description->level;
    List *told = NIL;
    ListCell *cell;

    appendStringInfoString(json, "\"sets\": [");
    foreach (cell, description->root->join_rel_list) {
        RelOptInfo *rel = lfirst(cell);
        Relids relids = ps_base_part(description->root, rel);
        PsSet *set = ps_find(level, relids);

        if (rel->reloptkind != RELOPT_JOINREL)
            continue;
        append_set(json, description, relids, rel->rows, set, IS_DUMMY_REL(rel));
        if (set && set->seen >= 0)
            told = lappend(told, set);
    }
    if (level->sets) {
        HASH_SEQ_STATUS scan;
        PsSet *set;

        hash_seq_init(&scan, level->sets);
        while ((set = hash_seq_search(&scan)) != NULL)
            if (set->seen >= 0 && !list_member_ptr(told, set))
                append_set(json, description, set->relids, set->seen, set, false);
    }
    appendStringInfoChar(json, ']');
}

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
    append_string(json, "why", root->hasRecursion ? "a recursive WITH" : "a UNION that was planned in one piece");
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
static char *group_key(const Description *description, Node *key) {
    char *sql = ps_text(description->texts, key, true);

    return IsA(key, Const) ? psprintf("COALESCE(%s)", sql) : sql;
}

static void append_groups(StringInfo json, const Description *description, List *keys) {
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

/* What a subquery returns. One without relations has its conditions here. */
static void append_result(StringInfo json, const Description *description) {
    Query *query = description->root->parse;
    const char *why = not_written(query);
    List *targets = NIL;
    List *having = (List *)query->havingQual;
    Relids relids = NULL;
    ListCell *cell;

    appendStringInfoString(json, ",\n\"result\": {");
    if (why)
        append_string(json, "why", why);
    else if (query->setOperations)
        append_operations(json, description->root);
    else {
        foreach (cell, description->root->processed_tlist) {
            TargetEntry *target = lfirst_node(TargetEntry, cell);

            if (!target->resjunk)
                targets = lappend(targets, target->expr);
        }
        append_texts(json, "targets", description, targets);
        appendStringInfoString(json, ", ");
        add_relids((Node *)targets, &relids);
        add_relids((Node *)having, &relids);
        append_relids(json, "rels", description, relids);
        appendStringInfoString(json, ", ");
        append_groups(json, description, query->groupClause);
        appendStringInfoString(json, ", ");
        append_texts(json, "having", description, having);
        if (bms_is_empty(description->level->base)) {
            appendStringInfoString(json, ", ");
            append_texts(json, "where", description, (List *)query->jointree->quals);
        }
        appendStringInfo(json, ", \"distinct\": %s, \"single\": %s, \"volatility\": \"%c\"",
                         query->distinctClause ? "true" : "false",
                         query->hasAggs && query->groupClause == NIL ? "true" : "false",
                         ps_volatility((Node *)list_concat_copy(targets, having)));
    }
    appendStringInfoChar(json, '}');
}

static void append_level(StringInfo json, PsLevel *level, StringInfo parameters, StringInfo subplans) {
    Description description = {.level = level, .root = level->root};
    StringInfoData relations, sets;
    int index = -1;
    int count = 0;

    level->described = true;
    description.texts = ps_start_texts(level, parameters, subplans);
    description.numbers = palloc0(sizeof(int) * Max(level->size, 1));
    initStringInfo(&description.clause_list);
    initStringInfo(&description.member_list);
    initStringInfo(&relations);
    initStringInfo(&sets);
    while ((index = bms_next_member(level->base, index)) >= 0)
        description.numbers[index] = count++;
    index = -1;
    while ((index = bms_next_member(level->base, index)) >= 0)
        append_relation(&relations, &description, index);
    append_sets(&sets, &description);
    appendStringInfo(json, "%s{\"id\": %d, \"outermost\": %s,\n\"relations\": [%s],\n%s,\n", json->data[json->len - 1] == '[' ? "" : ",\n",
                     level->id, level->root->query_level == 1 ? "true" : "false", relations.data, sets.data);
    append_placeholders(json, &description);
    if (level->root->query_level > 1)
        append_result(json, &description);
    appendStringInfo(json, ",\n\"clauses\": [%s],\n\"members\": [%s]}", description.clause_list.data, description.member_list.data);
}

/* The next level to describe: describing one can show that there are others, of subqueries without relations. */
static PsLevel *next_level(void) {
    PsLevel *next = NULL;

    for (PsLevel *level = ps_run->levels; level; level = level->next)
        if (!level->described && !level->trial && (next == NULL || level->id < next->id))
            next = level;
    return next;
}

void ps_describe(void) {
    StringInfoData json, parameters, subplans;
    PsLevel *level;

    initStringInfo(&json);
    initStringInfo(&parameters);
    initStringInfo(&subplans);
    appendStringInfoString(&json, "{\"levels\": [");
    while ((level = next_level()) != NULL)
        append_level(&json, level, &parameters, &subplans);
    appendStringInfo(&json, "],\n\"parameters\": {%s},\n\"subplans\": {%s}}", parameters.data, subplans.data);
    report = MemoryContextStrdup(TopMemoryContext, json.data);
    pfree(json.data);
}
