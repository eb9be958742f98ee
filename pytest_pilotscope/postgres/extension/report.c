/*
 * report.c: what the planner considered, as JSON.
 *
 * One object for each base relation and join relation of each level, made at the end of planning, when the planner's
 * own records are still there. With pilotscope.enumerate_sql it has the SQL that counts its rows, where that is known.
 */
#include "pilotscope.h"

#include "access/stratnum.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"

static char *report = NULL;

void ps_forget_report(void) {
    if (report)
        pfree(report);
    report = NULL;
}

const char *ps_show_report(void) {
    return report ? report : "[]";
}

/* How the expressions of a level are turned into SQL; NULL where that is not wanted or not safe. */
typedef struct Deparsing {
    PsLevel *level;
    List *context;
} Deparsing;

static char *table_name(Oid table) {
    return quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), get_rel_name(table));
}

/*
 * Expressions that have no meaning outside of their query, or whose deparsing needs a plan: PostgreSQL 17 crashes on a
 * SubPlan without one.
 */
static bool is_bound(Node *node, void *unused) {
    if (node == NULL)
        return false;
    if (IsA(node, Param) || IsA(node, SubPlan) || IsA(node, AlternativeSubPlan) || IsA(node, SubLink) ||
        IsA(node, PlaceHolderVar) || IsA(node, CurrentOfExpr))
        return true;
    if (IsA(node, Var))
        return ((Var *)node)->varlevelsup > 0 || ((Var *)node)->varattno < 0;
    return expression_tree_walker(node, is_bound, unused);
}

static bool append_condition(StringInfo text, const Deparsing *deparsing, Expr *expression, bool *first) {
    if (is_bound((Node *)expression, NULL))
        return false;
    appendStringInfo(text, " %s ", *first ? "WHERE" : "AND");
    appendStringInfoString(text, deparse_expression((Node *)expression, deparsing->context, true, false));
    *first = false;
    return true;
}

/* Whether a condition on several relations belongs to the set, and was not met at an earlier relation of it. */
static bool belongs(const RestrictInfo *condition, Relids set, int relation) {
    return bms_is_subset(condition->required_relids, set) && bms_next_member(condition->required_relids, -1) == relation;
}

static bool append_conditions(StringInfo text, const Deparsing *deparsing, Relids set, int relation, bool *first) {
    RelOptInfo *rel = deparsing->level->root->simple_rel_array[relation];
    ListCell *cell;

    foreach (cell, rel->baserestrictinfo)
        if (!append_condition(text, deparsing, lfirst_node(RestrictInfo, cell)->clause, first))
            return false;
    foreach (cell, rel->joininfo) {
        RestrictInfo *condition = lfirst_node(RestrictInfo, cell);

        if (belongs(condition, set, relation) && !append_condition(text, deparsing, condition->clause, first))
            return false;
    }
    return true;
}

static Expr *equality(const EquivalenceClass *class, const EquivalenceMember *left, const EquivalenceMember *right) {
    ListCell *cell;

    foreach (cell, class->ec_opfamilies) {
        Oid operator = get_opfamily_member(lfirst_oid(cell), left->em_datatype, right->em_datatype, BTEqualStrategyNumber);

        if (OidIsValid(operator))
            return make_opclause(operator, BOOLOID, false, left->em_expr, right->em_expr, InvalidOid, class->ec_collation);
    }
    return NULL;
}

/* The members of an equivalence class that lie inside the set are equal: a chain of equalities. */
static bool append_equalities(StringInfo text, const Deparsing *deparsing, Relids set, bool *first) {
    ListCell *outer_cell;
    ListCell *cell;

    foreach (outer_cell, deparsing->level->root->eq_classes) {
        EquivalenceClass *class = lfirst(outer_cell);
        EquivalenceMember *previous = NULL;

        if (class->ec_has_const || class->ec_has_volatile || class->ec_merged)
            continue; /* equality to a constant is a condition on each base relation */
        foreach (cell, class->ec_members) {
            EquivalenceMember *member = lfirst(cell);
            Expr *condition;

            if (member->em_is_child || bms_is_empty(member->em_relids) || !bms_is_subset(member->em_relids, set))
                continue;
            condition = previous ? equality(class, previous, member) : NULL;
            if (previous && (condition == NULL || !append_condition(text, deparsing, condition, first)))
                return false;
            previous = member;
        }
    }
    return true;
}

/* SQL that counts the rows of a set, or NULL. */
static char *count_sql(const Deparsing *deparsing, Relids set) {
    StringInfoData text;
    bool first = true;
    int relation = -1;

    initStringInfo(&text);
    while ((relation = bms_next_member(set, relation)) >= 0) {
        RangeTblEntry *rte = deparsing->level->root->simple_rte_array[relation];

        if (rte->rtekind != RTE_RELATION || rte->tablesample)
            return NULL;
        appendStringInfo(&text, "%s%s%s AS %s", text.len ? ", " : "SELECT count(*) FROM ",
                         !rte->inh && has_subclass(rte->relid) ? "ONLY " : "", table_name(rte->relid),
                         quote_identifier(deparsing->level->aliases[relation]));
    }
    relation = -1;
    while ((relation = bms_next_member(set, relation)) >= 0)
        if (!append_conditions(&text, deparsing, set, relation, &first))
            return NULL;
    return append_equalities(&text, deparsing, set, &first) ? text.data : NULL;
}

/* Under outer and semi joins a set of relations does not tell which rows are meant, so there is no SQL. */
static Deparsing *start_deparsing(PsLevel *level) {
    PlannedStmt *statement;
    Deparsing *deparsing;
    List *names = NIL;

    if (!ps_enumerate_sql || level->root->join_info_list != NIL)
        return NULL;
    statement = makeNode(PlannedStmt);
    statement->rtable = level->root->parse->rtable;
    for (int index = 1; index <= list_length(statement->rtable); index++)
        names = lappend(names, index < level->size && level->aliases[index] ? level->aliases[index] : "?");
    deparsing = palloc(sizeof(Deparsing));
    deparsing->level = level;
    deparsing->context = deparse_context_for_plan_tree(statement, names);
    return deparsing;
}

static void append_number(StringInfo text, const char *name, double value) {
    appendStringInfo(text, ", \"%s\": %s", name, float8out_internal(value));
}

static void append_aliases(StringInfo text, PsLevel *level, Relids relids) {
    int index = -1;
    const char *separator = "";

    appendStringInfoString(text, "\"rels\": [");
    while ((index = bms_next_member(relids, index)) >= 0) {
        appendStringInfoString(text, separator);
        escape_json(text, level->aliases[index]);
        separator = ", ";
    }
    appendStringInfoChar(text, ']');
}

static void append_set(StringInfo text, PsLevel *level, const Deparsing *deparsing, Relids relids, double rows) {
    PsSet *set = ps_find(level, relids);
    int single = -1;
    char *sql = deparsing ? count_sql(deparsing, relids) : NULL;

    appendStringInfo(text, "%s{\"level\": %d, ", text->len > 1 ? ",\n " : "", level->id);
    append_aliases(text, level, relids);
    append_number(text, "rows", rows);
    if (set && set->rows >= 0) {
        append_number(text, "injected", set->rows);
        if (set->stock >= 0)
            append_number(text, "stock", set->stock);
    }
    if (bms_get_singleton_member(relids, &single) && level->root->simple_rte_array[single]->rtekind == RTE_RELATION) {
        appendStringInfoString(text, ", \"relation\": ");
        escape_json(text, table_name(level->root->simple_rte_array[single]->relid));
        append_number(text, "tuples", level->root->simple_rel_array[single]->tuples);
    }
    if (sql) {
        appendStringInfoString(text, ", \"sql\": ");
        escape_json(text, sql);
    }
    appendStringInfoChar(text, '}');
}

static void append_level(StringInfo text, PsLevel *level) {
    Deparsing *deparsing = start_deparsing(level);
    int index = -1;
    ListCell *cell;

    while ((index = bms_next_member(level->base, index)) >= 0)
        append_set(text, level, deparsing, bms_make_singleton(index), level->root->simple_rel_array[index]->rows);
    foreach (cell, level->root->join_rel_list) {
        RelOptInfo *rel = lfirst(cell);
        Relids relids = ps_base_part(level->root, rel);
        PsSet *set = ps_find(level, relids);

        if (rel->reloptkind != RELOPT_JOINREL)
            continue;
        if (set)
            set->seen = -1; /* not once more below */
        append_set(text, level, deparsing, relids, rel->rows);
    }
    if (level->sets) {
        HASH_SEQ_STATUS scan;
        PsSet *set;

        hash_seq_init(&scan, level->sets);
        while ((set = hash_seq_search(&scan)) != NULL)
            if (set->seen >= 0)
                append_set(text, level, deparsing, set->relids, set->seen);
    }
}

static void append_levels(StringInfo text, PsLevel *level) {
    if (level->next)
        append_levels(text, level->next); /* the list has the newest first */
    if (!level->trial)
        append_level(text, level);
}

void ps_report(void) {
    StringInfoData text;

    initStringInfo(&text);
    appendStringInfoChar(&text, '[');
    if (ps_run->levels)
        append_levels(&text, ps_run->levels);
    appendStringInfoChar(&text, ']');
    report = MemoryContextStrdup(TopMemoryContext, text.data);
    pfree(text.data);
}
