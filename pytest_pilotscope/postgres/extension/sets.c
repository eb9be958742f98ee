/*
 * sets.c: the sets of a level, the pairs of inputs that make them, and the clauses that join these.
 */
#include "meaning.h"

#include "nodes/nodeFuncs.h"
#include "optimizer/pathnode.h"
#include "utils/float.h"
#include "utils/json.h"

/* Number a member of an equivalence class. */
static int member_number(PsDescription *description, EquivalenceClass *class, EquivalenceMember *member) {
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
    ps_append_relids(json, "rels", description, member->em_relids);
    appendStringInfo(json, ", \"type\": %u, ", exprType((Node *)member->em_expr));
    ps_append_string(json, "sql", ps_text(description->texts, (Node *)member->em_expr, true));
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
int ps_clause_number(PsDescription *description, RestrictInfo *clause) {
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
    ps_append_string(&text, "sql", ps_text(description->texts, (Node *)clause->clause, true));
    appendStringInfoString(&text, ", ");
    ps_append_relids(&text, "rels", description, clause->clause_relids);
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

static void append_clauses(StringInfo json, const char *name, PsDescription *description, List *clauses) {
    ListCell *cell;

    appendStringInfo(json, "\"%s\": [", name);
    foreach (cell, clauses)
        appendStringInfo(json, "%s%d", cell == list_head(clauses) ? "" : ", ", ps_clause_number(description, lfirst(cell)));
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

static void append_pair(StringInfo json, PsDescription *description, const PsPair *pair) {
    appendStringInfo(json, "{\"kind\": \"%s\", ", join_name(pair->kind));
    ps_append_relids(json, "outer", description, pair->outer);
    appendStringInfoString(json, ", ");
    ps_append_relids(json, "inner", description, pair->inner);
    appendStringInfoString(json, ", ");
    append_clauses(json, "on", description, pair->on);
    if (pair->where) {
        appendStringInfoString(json, ", ");
        append_clauses(json, "where", description, pair->where);
    }
    if (pair->unique) {
        appendStringInfoString(json, ", ");
        ps_append_texts(json, "unique", description, pair->unique);
    }
    appendStringInfoChar(json, '}');
}

static void append_set(StringInfo json, PsDescription *description, Relids relids, double rows, const PsSet *set, bool empty) {
    ListCell *cell;

    appendStringInfo(json, "%s{", json->data[json->len - 1] == '[' ? "" : ",\n ");
    ps_append_relids(json, "rels", description, relids);
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
void ps_append_sets(StringInfo json, PsDescription *description) {
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

