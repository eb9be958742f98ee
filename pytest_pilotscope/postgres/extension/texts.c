/*
 * texts.c: expressions of a query level as SQL.
 *
 * PostgreSQL deparses them. Expressions that it cannot deparse without a finished plan (subplans, parameters, placeholders)
 * become columns of a relation that does not exist, MARKS below; queries/meaning.py replaces them:
 *
 *   "pilotscope ?".s2   the subplan with this number     "pilotscope ?".h3   the placeholder with this number
 *   "pilotscope ?".p1   the parameter with this number   "pilotscope ?".x1   nothing that SQL can say, see reasons
 */
#include "pilotscope.h"

#include "nodes/makefuncs.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "utils/array.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#define MARKS "pilotscope ?"

typedef enum Reason {
    EXTERNAL = 1,
    CURRENT_OF,
    RECORD_FIELD,
    REMOVED,
    CONSTANT_ROW,
    ROW_NAMES,
    OUR_MARK,
    ARRAY_NULLS,
    REASONS = ARRAY_NULLS
} Reason;

struct PsTexts {
    PsLevel *level;
    List *context;    /* for ruleutils */
    int marks;        /* range table index of the marks */
    int subplans;     /* how many the statement has: their columns come after the reasons */
    int parameters;   /* their columns come after the subplans, and the placeholders after them */
    int placeholders;
    StringInfo parameter_list; /* "1": {...}, as JSON, each once per statement */
    StringInfo subplan_list;
};

/*
 * A name that no other relation of the statement has, also inside the subqueries that are written into its SQL. NULL for what
 * is no relation of the level, nor a branch of a UNION ALL in its FROM.
 */
char *ps_relation_name(PsLevel *level, int index) {
    const char *alias = index < level->size ? level->aliases[index] : NULL;
    const char *name;

    if (alias == NULL && !ps_is_branch(level, index))
        return NULL;
    name = alias == NULL || strpbrk(alias, "#@?") || strlen(alias) > 40 ? psprintf("r#%d", index) : alias;

    return level->root->query_level == 1 ? pstrdup(name) : psprintf("%s@%d", name, level->id);
}

static List *numbered(const char *letter, int count, List *names) {
    for (int i = 1; i <= count; i++)
        names = lappend(names, makeString(psprintf("%s%d", letter, i)));
    return names;
}

static RangeTblEntry *stand_in(const char *name, List *columns) {
    RangeTblEntry *rte = makeNode(RangeTblEntry);

    rte->rtekind = RTE_VALUES;
    rte->eref = makeAlias(name, columns);
    return rte;
}

/*
 * The entry by which ruleutils names the columns of a relation: those of a table have their own names, whatever names the
 * query gave them; those of anything else are c1, c2, ...
 */
static RangeTblEntry *naming_entry(const char *name, RangeTblEntry *rte) {
    if (name == NULL)
        return stand_in("?", NIL);
    if (rte->rtekind != RTE_RELATION)
        return stand_in("?", numbered("c", list_length(rte->eref->colnames), NIL));
    rte = copyObject(rte);
    rte->alias = NULL;
    return rte;
}

PsTexts *ps_start_texts(PsLevel *level, StringInfo parameters, StringInfo subplans) {
    PsTexts *texts = palloc0(sizeof(PsTexts));
    PlannerGlobal *global = level->root->glob;
    PlannedStmt *statement = makeNode(PlannedStmt);
    List *names = NIL;
    List *marks;
    int index = 0;
    ListCell *cell;

    texts->level = level;
    texts->subplans = list_length(global->subplans);
    texts->parameters = list_length(global->paramExecTypes);
    texts->placeholders = (int)global->lastPHId;
    texts->parameter_list = parameters;
    texts->subplan_list = subplans;
    foreach (cell, level->root->parse->rtable) {
        char *name = ps_relation_name(level, ++index);

        statement->rtable = lappend(statement->rtable, naming_entry(name, lfirst(cell)));
        names = lappend(names, name ? name : "?");
    }
    marks = numbered("s", texts->subplans, numbered("x", REASONS, NIL));
    marks = numbered("h", texts->placeholders, numbered("p", texts->parameters, marks));
    texts->marks = index + 1;
    statement->rtable = lappend(statement->rtable, stand_in(MARKS, marks));
    names = lappend(names, MARKS);
    texts->context = deparse_context_for_plan_tree(statement, names);
    return texts;
}

static Node *mark(PsTexts *texts, int column, Node *node) {
    return (Node *)makeVar(texts->marks, (AttrNumber)column, exprType(node), exprTypmod(node), exprCollation(node), 0);
}

static void begin_entry(StringInfo list, int number) {
    appendStringInfo(list, "%s\"%d\": {", list->len ? ",\n " : "", number);
}

/* Note the value of a parameter: an expression of a level around the one that uses it. */
void ps_tell_parameter(PsTexts *texts, int number, Node *expression) {
    char *sql;

    if (bms_is_member(number, ps_run->told_parameters))
        return;
    ps_run->told_parameters = bms_add_member(ps_run->told_parameters, number);
    sql = ps_text(texts, expression, true);
    begin_entry(texts->parameter_list, number);
    appendStringInfo(texts->parameter_list, "\"level\": %d, \"sql\": ", texts->level->id);
    escape_json(texts->parameter_list, sql);
    appendStringInfoChar(texts->parameter_list, '}');
}

static const char *kind_of(SubLinkType type) {
    switch (type) {
    case EXISTS_SUBLINK:
        return "EXISTS";
    case ANY_SUBLINK:
        return "ANY";
    case ALL_SUBLINK:
        return "ALL";
    case EXPR_SUBLINK:
        return "EXPR";
    case ROWCOMPARE_SUBLINK:
        return "ROW";
    case ARRAY_SUBLINK:
        return "ARRAY";
    default:
        return "other";
    }
}

/* Tell whether a test is one operator with the subquery's column at its right: then it can be written with ANY or ALL. */
static bool is_direct(const SubPlan *subplan) {
    OpExpr *test = (OpExpr *)subplan->testexpr;
    Node *right;

    if (test == NULL || !IsA(test, OpExpr) || list_length(test->args) != 2 || list_length(subplan->paramIds) != 1)
        return false;
    right = lsecond(test->args);
    return IsA(right, Param) && ((Param *)right)->paramkind == PARAM_EXEC &&
           ((Param *)right)->paramid == linitial_int(subplan->paramIds);
}

/* Note a subplan: its level, the columns that it is correlated by, and the expressions that its rows are compared with. */
static void tell_subplan(PsTexts *texts, SubPlan *subplan) {
    char *test = NULL;
    PlannerInfo *root;
    ListCell *number, *argument;

    if (bms_is_member(subplan->plan_id, ps_run->told_subplans))
        return;
    ps_run->told_subplans = bms_add_member(ps_run->told_subplans, subplan->plan_id);
    forboth (number, subplan->parParam, argument, subplan->args)
        ps_tell_parameter(texts, lfirst_int(number), lfirst(argument));
    if (subplan->testexpr)
        test = ps_text(texts, subplan->testexpr, true);
    root = list_nth(texts->level->root->glob->subroots, subplan->plan_id - 1);
    begin_entry(texts->subplan_list, subplan->plan_id);
    appendStringInfo(texts->subplan_list, "\"kind\": \"%s\", \"level\": %d, \"direct\": %s, \"columns\": [",
                     kind_of(subplan->subLinkType), ps_level(root)->id, is_direct(subplan) ? "true" : "false");
    foreach (number, subplan->paramIds)
        appendStringInfo(texts->subplan_list, "%s%d", number == list_head(subplan->paramIds) ? "" : ", ", lfirst_int(number));
    appendStringInfoString(texts->subplan_list, "], \"test\": ");
    if (test)
        escape_json(texts->subplan_list, test);
    else
        appendStringInfoString(texts->subplan_list, "null");
    appendStringInfoChar(texts->subplan_list, '}');
}

/* Note a parameter that a subplan computes once before the query starts, of this level or one around it. */
static void tell_initial_plan(PsTexts *texts, int number) {
    for (PlannerInfo *root = texts->level->root; root; root = root->parent_root) {
        ListCell *cell, *parameter;

        foreach (cell, root->init_plans) {
            SubPlan *subplan = lfirst_node(SubPlan, cell);

            foreach (parameter, subplan->setParam) {
                if (lfirst_int(parameter) != number || subplan->subLinkType == CTE_SUBLINK ||
                    bms_is_member(number, ps_run->told_parameters))
                    continue;
                ps_run->told_parameters = bms_add_member(ps_run->told_parameters, number);
                tell_subplan(texts, subplan);
                begin_entry(texts->parameter_list, number);
                appendStringInfo(texts->parameter_list, "\"plan\": %d, \"column\": %d}", subplan->plan_id,
                                 list_cell_number(subplan->setParam, parameter) + 1);
            }
        }
    }
}

static Node *marked_parameter(PsTexts *texts, Param *parameter) {
    if (parameter->paramkind != PARAM_EXEC)
        return mark(texts, EXTERNAL, (Node *)parameter);
    tell_initial_plan(texts, parameter->paramid);
    return mark(texts, REASONS + texts->subplans + parameter->paramid + 1, (Node *)parameter);
}

/* A column by the relation that the planner takes it from: the name that the user wrote may be that of a removed relation. */
static Node *marked_column(PsTexts *texts, Var *column) {
    RangeTblEntry *rte;
    Var *copy;

    if (column->varlevelsup > 0 || ps_relation_name(texts->level, (int)column->varno) == NULL)
        return mark(texts, REMOVED, (Node *)column);
    rte = rt_fetch(column->varno, texts->level->root->parse->rtable);
    if (column->varattno == 0 && rte->rtekind != RTE_RELATION)
        return mark(texts, ROW_NAMES, (Node *)column); /* its columns are called c1, c2 in our SQL */
    copy = copyObject(column);
    copy->varnosyn = 0;
    copy->varattnosyn = 0;
    return (Node *)copy;
}

/* Tell whether the fields of a row have other names than those of ROW(...), which is all that ruleutils prints. */
static bool has_field_names(const RowExpr *row) {
    int number = 0;
    ListCell *cell;

    if (row->row_typeid != RECORDOID)
        return false;
    foreach (cell, row->colnames)
        if (strcmp(strVal(lfirst(cell)), psprintf("f%d", ++number)) != 0)
            return true;
    return false;
}

/* Tell whether a constant contains our mark, which would be replaced in its text. */
static bool contains_mark(const Const *constant) {
    Oid output;
    bool is_varlena;

    if (constant->constisnull || constant->constbyval)
        return false;
    getTypeOutputInfo(constant->consttype, &output, &is_varlena);
    return strstr(OidOutputFunctionCall(output, constant->constvalue), MARKS) != NULL;
}

/* Tell whether a constant array has a NULL that would be read again as a text. */
static bool has_unreadable_null(const Const *constant) {
    return !Array_nulls && !constant->constisnull && OidIsValid(get_element_type(constant->consttype)) &&
           array_contains_nulls(DatumGetArrayTypeP(constant->constvalue));
}

static Node *marked(Node *node, void *context) {
    PsTexts *texts = context;

    if (node == NULL)
        return NULL;
    switch (nodeTag(node)) {
    case T_Var:
        return marked_column(texts, (Var *)node);
    case T_Param:
        return marked_parameter(texts, (Param *)node);
    case T_PlaceHolderVar:
        return mark(texts, REASONS + texts->subplans + texts->parameters + (int)((PlaceHolderVar *)node)->phid, node);
    case T_AlternativeSubPlan:
        return marked(linitial(((AlternativeSubPlan *)node)->subplans), context);
    case T_SubPlan:
        tell_subplan(texts, (SubPlan *)node);
        return mark(texts, REASONS + ((SubPlan *)node)->plan_id, node);
    case T_Const: /* what is printed for a row without a name cannot be read again */
        if (((Const *)node)->consttype == RECORDOID && !((Const *)node)->constisnull)
            return mark(texts, CONSTANT_ROW, node);
        if (contains_mark((Const *)node))
            return mark(texts, OUR_MARK, node);
        if (has_unreadable_null((Const *)node))
            return mark(texts, ARRAY_NULLS, node);
        break;
    case T_RowExpr:
        if (has_field_names((RowExpr *)node))
            return mark(texts, ROW_NAMES, node);
        break;
    case T_CurrentOfExpr:
        return mark(texts, CURRENT_OF, node);
    case T_FieldSelect: /* ruleutils would look for the record behind it */
        if (exprType((Node *)((FieldSelect *)node)->arg) == RECORDOID)
            return mark(texts, RECORD_FIELD, node);
        break;
    case T_RelabelType: /* the planner's form of COLLATE, which ruleutils does not show */
    {
        RelabelType *relabel = (RelabelType *)node;

        if (OidIsValid(relabel->resultcollid) && relabel->resultcollid != exprCollation((Node *)relabel->arg)) {
            CollateExpr *collate = makeNode(CollateExpr);
            Expr *argument = (Expr *)marked((Node *)relabel->arg, context);

            if (relabel->resulttype != exprType((Node *)argument)) {
                relabel = copyObject(relabel);
                relabel->arg = argument;
                relabel->resultcollid = exprCollation((Node *)argument);
                argument = (Expr *)relabel;
            }
            collate->arg = argument;
            collate->collOid = ((RelabelType *)node)->resultcollid;
            collate->location = -1;
            return (Node *)collate;
        }
        break;
    }
    default:
        break;
    }
    return expression_tree_mutator(node, marked, context);
}

/* The SQL of an expression, its columns with or without the names of their relations. */
char *ps_text(PsTexts *texts, Node *expression, bool qualified) {
    return deparse_expression(marked(expression, texts), texts->context, qualified, false);
}

/* As pg_proc.provolatile. A subplan's own level has its own. */
char ps_volatility(Node *expression) {
    if (contain_volatile_functions(expression))
        return 'v';
    return contain_mutable_functions(expression) ? 's' : 'i';
}
