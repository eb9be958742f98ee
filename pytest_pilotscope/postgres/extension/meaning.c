/*
 * meaning.c: the meaning of each set of relations, as JSON, from the planner's own records at the end of planning.
 *
 *   {"levels": [level, ...], "parameters": {"1": ...}, "subplans": {"2": ...}}
 *
 * A level has its relations, the members of its equivalence classes, its clauses, placeholders and sets, and for a subquery
 * its result. Relations are numbered from 0 within their level. A set names the pairs of inputs that make it, with the
 * numbers of the clauses that join them; its SQL is put together from that. docs/steering.md has the format.
 */
#include "meaning.h"

#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"
#include "utils/guc.h"
#include "utils/json.h"
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

void ps_append_string(StringInfo json, const char *name, const char *value) {
    appendStringInfo(json, "\"%s\": ", name);
    escape_json(json, value);
}

void ps_append_relids(StringInfo json, const char *name, const PsDescription *description, Relids relids) {
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
void ps_append_texts(StringInfo json, const char *name, const PsDescription *description, List *expressions) {
    ListCell *cell;

    appendStringInfo(json, "\"%s\": [", name);
    foreach (cell, expressions) {
        appendStringInfoString(json, cell == list_head(expressions) ? "" : ", ");
        escape_json(json, ps_text(description->texts, lfirst(cell), true));
    }
    appendStringInfoChar(json, ']');
}

static void append_placeholders(StringInfo json, const PsDescription *description) {
    ListCell *cell;

    appendStringInfoString(json, "\"placeholders\": [");
    foreach (cell, description->root->placeholder_list) {
        PlaceHolderInfo *placeholder = lfirst(cell);

        appendStringInfo(json, "%s{\"id\": %u, ", cell == list_head(description->root->placeholder_list) ? "" : ",\n ",
                         placeholder->phid);
        ps_append_relids(json, "at", description, placeholder->ph_eval_at);
        appendStringInfoString(json, ", ");
        ps_append_relids(json, "lateral", description, placeholder->ph_lateral);
        appendStringInfo(json, ", \"volatility\": \"%c\", ", ps_volatility((Node *)placeholder->ph_var->phexpr));
        ps_append_string(json, "sql", ps_text(description->texts, (Node *)placeholder->ph_var->phexpr, true));
        appendStringInfoChar(json, '}');
    }
    appendStringInfoChar(json, ']');
}

static void append_level(StringInfo json, PsLevel *level, StringInfo parameters, StringInfo subplans) {
    PsDescription description = {.level = level, .root = level->root};
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
        ps_append_relation(&relations, &description, index);
    ps_append_sets(&sets, &description);
    appendStringInfo(json, "%s{\"id\": %d, \"outermost\": %s,\n\"relations\": [%s],\n%s,\n", json->data[json->len - 1] == '[' ? "" : ",\n",
                     level->id, level->root->query_level == 1 ? "true" : "false", relations.data, sets.data);
    append_placeholders(json, &description);
    if (level->root->query_level > 1)
        ps_append_result(json, &description);
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

/* Let constants be written so that every session reads the same value again (as postgres_fdw does it), and our marks bare. */
static void write_exactly(void) {
    static const char *const settings[][2] = {
        {"extra_float_digits", "1"}, {"DateStyle", "ISO"}, {"IntervalStyle", "postgres"}, {"quote_all_identifiers", "off"}};

    for (size_t i = 0; i < lengthof(settings); i++)
        set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void ps_describe(void) {
    int before = NewGUCNestLevel();
    StringInfoData json, parameters, subplans;
    PsLevel *level;

    write_exactly();
    initStringInfo(&json);
    initStringInfo(&parameters);
    initStringInfo(&subplans);
    appendStringInfoString(&json, "{\"levels\": [");
    while ((level = next_level()) != NULL)
        append_level(&json, level, &parameters, &subplans);
    appendStringInfo(&json, "],\n\"parameters\": {%s},\n\"subplans\": {%s}}", parameters.data, subplans.data);
    report = MemoryContextStrdup(TopMemoryContext, json.data);
    pfree(json.data);
    AtEOXact_GUC(true, before);
}
