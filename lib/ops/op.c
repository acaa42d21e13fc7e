#include "ops/op.h"

eqat_status eqi_op_finish(eqi_tape *tape, eqat_status st, const eqi_op *op, eqi_tensor *const *in,
                          int n_in, eqi_tensor **out, eqi_tensor *const *saved, int n_saved,
                          const void *attr, size_t attr_size)
{
    if (st == EQAT_OK)
        st = eqi_tape_record(tape, op, in, n_in, *out, saved, n_saved, attr, attr_size);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*out);
        *out = NULL;
    }
    return st;
}
