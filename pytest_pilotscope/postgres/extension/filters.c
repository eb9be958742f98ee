/*
 * filters.c: conditions and keys of one relation in a structured form, for counting in memory and for features.
 *
 * A condition is a column and a constant, a list of constants, a pattern, another column, or AND, OR, NOT of such. Any other
 * condition has no structured form, and PostgreSQL evaluates its SQL.
 */
#include "pilotscope.h"

#include "access/nbtree.h"
#include "access/stratnum.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

static Node *without_relabel(Node *node) {
    while (node && IsA(node, RelabelType))
        node = (Node *)((RelabelType *)node)->arg;
    return node;
}

static bool is_integer(Oid type) {
    return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* The name of a user column of a table, or NULL. An integer that is read as another type (oid has no sign) is no column. */
static char *column_name(const RangeTblEntry *rte, Node *node) {
    Var *column = (Var *)without_relabel(node);

    if (column == NULL || !IsA(column, Var) || column->varlevelsup > 0 || column->varattno <= 0 || rte->rtekind != RTE_RELATION ||
        (is_integer(column->vartype) && !is_integer(exprType(node))))
        return NULL;
    return get_attname(rte->relid, column->varattno, true);
}

static void append_string(StringInfo json, const char *name, const char *value) {
    appendStringInfo(json, "\"%s\": ", name);
    escape_json(json, value);
}

/* A value as JSON: numbers and booleans as themselves, everything else as text of its type. */
static void append_value(StringInfo json, Oid type, Datum value) {
    Oid output;
    bool is_varlena;
    char *text;

    getTypeOutputInfo(type, &output, &is_varlena);
    text = OidOutputFunctionCall(output, value);
    if (is_integer(type))
        appendStringInfoString(json, text);
    else if (type == BOOLOID)
        appendStringInfoString(json, DatumGetBool(value) ? "true" : "false");
    else
        escape_json(json, text);
}

/* The name of a type of any length (bpchar, "bit"): "character" and "bit" would be of length 1. */
static char *type_name(Oid type) {
    return format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN);
}

static void append_type(StringInfo json, Oid type) {
    append_string(json, "type", type_name(type));
}

/* A built-in comparison by the name of its operator, else NULL. */
static const char *comparison(Oid operator) {
    static const char *const names[] = {"=", "<>", "<", "<=", ">", ">=", "~~", "!~~", "~~*", "!~~*"};
    char *name = operator < FirstNormalObjectId ? get_opname(operator) : NULL;

    for (size_t i = 0; name && i < lengthof(names); i++)
        if (strcmp(name, names[i]) == 0)
            return names[i];
    return NULL;
}

static bool is_pattern(const char *operator) {
    return operator[0] == '~' || operator[0] == '!';
}

/* Tell whether texts that differ are different: a collation that is not deterministic takes some as equal. */
static bool tells_apart(Oid collation) {
    return !OidIsValid(collation) || get_collation_isdeterministic(collation);
}

/* column operator constant, column operator column. */
static bool append_comparison(StringInfo json, const RangeTblEntry *rte, OpExpr *test) {
    Node *left = list_length(test->args) == 2 ? linitial(test->args) : NULL;
    Node *right = left ? without_relabel(lsecond(test->args)) : NULL;
    Oid operator = test->opno;
    char *column;
    const char *name;

    if (left && IsA(without_relabel(left), Const)) {
        Node *swap = without_relabel(left);

        operator = get_commutator(operator);
        left = lsecond(test->args);
        right = swap;
    }
    column = left ? column_name(rte, left) : NULL;
    name = column && OidIsValid(operator) ? comparison(operator) : NULL;
    if (name == NULL || !tells_apart(test->inputcollid) ||
        (IsA(right, Const) ? ((Const *)right)->constisnull : is_pattern(name) || !column_name(rte, right)))
        return false;
    appendStringInfoChar(json, '{');
    append_string(json, "column", column);
    appendStringInfo(json, ", \"operator\": \"%s\", ", name);
    if (IsA(right, Const)) {
        appendStringInfoString(json, "\"value\": ");
        append_value(json, ((Const *)right)->consttype, ((Const *)right)->constvalue);
        appendStringInfoString(json, ", ");
        append_type(json, ((Const *)right)->consttype);
    } else
        append_string(json, "other", column_name(rte, right));
    appendStringInfoChar(json, '}');
    return true;
}

/* column = ANY (constants), column <> ALL (constants). */
static bool append_list(StringInfo json, const RangeTblEntry *rte, ScalarArrayOpExpr *test) {
    char *column = column_name(rte, linitial(test->args));
    const char *name = column ? comparison(test->opno) : NULL;
    Const *list = (Const *)without_relabel(lsecond(test->args));
    Datum *values;
    bool *nulls;
    int count;
    Oid type;
    int16 length;
    bool by_value;
    char alignment;

    if (name == NULL || !tells_apart(test->inputcollid) || strcmp(name, test->useOr ? "=" : "<>") != 0 || !IsA(list, Const) ||
        list->constisnull)
        return false;
    type = get_element_type(list->consttype);
    if (!OidIsValid(type))
        return false;
    get_typlenbyvalalign(type, &length, &by_value, &alignment);
    deconstruct_array(DatumGetArrayTypeP(list->constvalue), type, length, by_value, alignment, &values, &nulls, &count);
    for (int i = 0; i < count; i++)
        if (nulls[i])
            return false;
    if (count == 0)
        return false;
    appendStringInfoString(json, test->useOr ? "{" : "{\"not\": {");
    append_string(json, "column", column);
    appendStringInfoString(json, ", \"values\": [");
    for (int i = 0; i < count; i++) {
        appendStringInfoString(json, i ? ", " : "");
        append_value(json, type, values[i]);
    }
    appendStringInfoString(json, "], ");
    append_type(json, type);
    appendStringInfoString(json, test->useOr ? "}" : "}}");
    return true;
}

static bool append_structured(StringInfo json, const RangeTblEntry *rte, Node *condition);

static bool append_boolean(StringInfo json, const RangeTblEntry *rte, BoolExpr *test) {
    ListCell *cell;

    if (test->boolop == NOT_EXPR) {
        appendStringInfoString(json, "{\"not\": ");
        if (!append_structured(json, rte, linitial(test->args)))
            return false;
        appendStringInfoChar(json, '}');
        return true;
    }
    appendStringInfo(json, "{\"%s\": [", test->boolop == AND_EXPR ? "and" : "or");
    foreach (cell, test->args) {
        appendStringInfoString(json, cell == list_head(test->args) ? "" : ", ");
        if (!append_structured(json, rte, lfirst(cell)))
            return false;
    }
    appendStringInfoString(json, "]}");
    return true;
}

/* Append a condition, or something unfinished and return false. */
static bool append_structured(StringInfo json, const RangeTblEntry *rte, Node *condition) {
    check_stack_depth();
    switch (nodeTag(condition)) {
    case T_BoolExpr:
        return append_boolean(json, rte, (BoolExpr *)condition);
    case T_OpExpr:
        return append_comparison(json, rte, (OpExpr *)condition);
    case T_ScalarArrayOpExpr:
        return append_list(json, rte, (ScalarArrayOpExpr *)condition);
    case T_NullTest: {
        NullTest *test = (NullTest *)condition;
        char *column = test->argisrow ? NULL : column_name(rte, (Node *)test->arg);

        if (column == NULL)
            return false;
        appendStringInfoString(json, test->nulltesttype == IS_NULL ? "{" : "{\"not\": {");
        append_string(json, "null", column);
        appendStringInfoString(json, test->nulltesttype == IS_NULL ? "}" : "}}");
        return true;
    }
    case T_Var: {
        char *column = column_name(rte, condition);

        if (column == NULL)
            return false;
        appendStringInfoChar(json, '{');
        append_string(json, "column", column);
        appendStringInfoString(json, ", \"operator\": \"=\", \"value\": true, ");
        append_type(json, BOOLOID);
        appendStringInfoChar(json, '}');
        return true;
    }
    default:
        return false;
    }
}

static void append_columns(StringInfo json, const RangeTblEntry *rte, Node *condition) {
    List *columns = pull_var_clause(condition, PVC_RECURSE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS | PVC_RECURSE_PLACEHOLDERS);
    const char *separator = "";
    ListCell *cell;

    appendStringInfoString(json, "\"columns\": [");
    foreach (cell, columns) {
        char *name = column_name(rte, lfirst(cell));

        if (name == NULL)
            continue;
        appendStringInfoString(json, separator);
        escape_json(json, name);
        separator = ", ";
    }
    appendStringInfoChar(json, ']');
}

/* Append the members of a filter: its SQL with bare columns, these columns, and its structured form or null. */
void ps_append_filter(StringInfo json, PsTexts *texts, RangeTblEntry *rte, Node *condition) {
    int before;

    append_string(json, "sql", ps_text(texts, condition, false));
    appendStringInfoString(json, ", ");
    append_columns(json, rte, condition);
    appendStringInfoString(json, ", \"condition\": ");
    before = json->len;
    if (append_structured(json, rte, condition))
        return;
    json->len = before;
    json->data[before] = '\0';
    appendStringInfoString(json, "null");
}

/* Equality of a type is bytewise where btree may keep one of several equal values (nbtree's "equalimage"). */
static bool is_bytewise(Oid family, Oid operator, Oid type, Oid collation) {
    Oid left, right, proc;

    if (type == BPCHAROID)
        return false; /* it is for columns of one length only */
    op_input_types(operator, &left, &right);
    proc = get_opfamily_proc(family, left, left, BTEQUALIMAGE_PROC);
    return OidIsValid(proc) && DatumGetBool(OidFunctionCall1Coll(proc, collation, ObjectIdGetDatum(type)));
}

/*
 * The column behind a member of an equivalence class and the type in which it is compared, so that it can be counted in
 * memory. Nothing for other expressions than columns, and for an equality that is not the type's own.
 */
void ps_append_key(StringInfo json, PsLevel *level, const EquivalenceClass *class, const EquivalenceMember *member) {
    int index;
    Oid type = exprType((Node *)member->em_expr);
    Oid family = linitial_oid(class->ec_opfamilies);
    char *column;
    char *name;
    Oid operator, input;

    if (!bms_get_singleton_member(member->em_relids, &index))
        return;
    column = column_name(level->root->simple_rte_array[index], (Node *)member->em_expr);
    if (column == NULL || lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY)->btree_opf != family)
        return;
    input = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY)->btree_opintype;
    operator = get_opfamily_member(family, input, input, BTEqualStrategyNumber);
    if (!OidIsValid(operator))
        return;
    name = is_integer(type) ? pstrdup("integer") : type_name(type);
    if (OidIsValid(class->ec_collation) && class->ec_collation != get_typcollation(type))
        name = psprintf("%s COLLATE %s", name, generate_collation_name(class->ec_collation));
    appendStringInfoString(json, ", ");
    append_string(json, "column", column);
    appendStringInfoString(json, ", ");
    append_string(json, "key", name);
    appendStringInfo(json, ", \"bytewise\": %s", is_bytewise(family, operator, type, class->ec_collation) ? "true" : "false");
}
