/*
 * buffers.c: SET pilotscope.drop_buffers = on writes the pages of this database to its files and takes them out of shared buffers.
 *
 * The setting never stays on, so that neither a rollback nor a parallel worker does it again. Only superusers may set it, and the
 * suite does so on servers that it has started itself.
 */
#include "pilotscope.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/guc.h"

static bool drop_buffers = false;

static bool check_drop_buffers(bool *newval, void **extra pg_attribute_unused(), GucSource source) {
    if (*newval && source == PGC_S_SESSION && IsTransactionState() && !IsParallelWorker()) {
        FlushDatabaseBuffers(MyDatabaseId);
        DropDatabaseBuffers(MyDatabaseId);
    }
    *newval = false;
    return true;
}

void ps_define_drop_buffers(void) {
    DefineCustomBoolVariable("pilotscope.drop_buffers", "Take the pages of this database out of shared buffers.", NULL, &drop_buffers,
                             false, PGC_SUSET, GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, check_drop_buffers, NULL, NULL);
}
