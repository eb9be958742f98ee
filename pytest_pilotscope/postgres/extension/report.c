/*
 * report.c: the sets that the planner considered, as JSON.
 *
 * One object for each base relation and join relation of each level, made at the end of planning, when the planner's
 * own records are still there.
 */
#include "pilotscope.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

static char *report = NULL;

void ps_forget_report(void) {
    if (report)
        pfree(report);
    report = NULL;
}

const char *ps_show_report(void) {
    return report ? report : "[]";
}

static char *table_name(Oid table) {
    return quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)), get_rel_name(table));
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

static void append_set(StringInfo text, PsLevel *level, Relids relids, double rows) {
    PsSet *set = ps_find(level, relids);
    int single = -1;

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
    appendStringInfoChar(text, '}');
}

static void append_level(StringInfo text, PsLevel *level) {
    int index = -1;
    ListCell *cell;

    while ((index = bms_next_member(level->base, index)) >= 0)
        append_set(text, level, bms_make_singleton(index), level->root->simple_rel_array[index]->rows);
    foreach (cell, level->root->join_rel_list) {
        RelOptInfo *rel = lfirst(cell);
        Relids relids = ps_base_part(level->root, rel);
        PsSet *set = ps_find(level, relids);

        if (rel->reloptkind != RELOPT_JOINREL)
            continue;
        if (set)
            set->seen = -1; /* not once more below */
        append_set(text, level, relids, rel->rows);
    }
    if (level->sets) {
        HASH_SEQ_STATUS scan;
        PsSet *set;

        hash_seq_init(&scan, level->sets);
        while ((set = hash_seq_search(&scan)) != NULL)
            if (set->seen >= 0)
                append_set(text, level, set->relids, set->seen);
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
