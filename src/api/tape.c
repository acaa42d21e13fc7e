#include "eqat/tape.h"

#include "autograd/tape.h"
#include "base/entry.h"

eqat_status eqat_tape_create(eqat_context *ctx, eqat_tape **out)
{
    if (out) *out = NULL;
    EQI_ENTER(ctx);
    EQI_NEED(ctx, out);
    return eqi_tape_create(ctx, out);
}

static void free_tape(void *tape) { eqi_tape_free(tape); }

void eqat_tape_free(eqat_tape *tape)
{
    if (tape) eqi_handle_free(tape->ctx, &tape->handle, free_tape, tape);
}

void eqat_tape_clear(eqat_tape *tape)
{
    if (!tape) return;
    EQI_GUARD(tape->ctx);
    eqi_tape_clear(tape);
}

void eqat_tape_set_recording(eqat_tape *tape, bool on)
{
    if (tape) eqi_tape_set_recording(tape, on);
}

eqat_status eqat_tape_backward(eqat_tape *tape, eqat_tensor *loss, double scale)
{
    EQI_ENTER_OF(tape);
    EQI_NEED(tape->ctx, loss);
    return eqi_tape_backward(tape, loss, scale);
}

eqat_status eqat_tape_backward_from(eqat_tape *tape, eqat_tensor *out, const eqat_tensor *grad)
{
    EQI_ENTER_OF(tape);
    EQI_NEED(tape->ctx, out, grad);
    return eqi_tape_backward_from(tape, out, grad);
}

eqat_status eqat_tape_add_grad(eqat_tape *tape, eqat_tensor *tensor, const eqat_tensor *grad)
{
    EQI_ENTER_OF(tape);
    EQI_NEED(tape->ctx, tensor, grad);
    if (!tensor->requires_grad) return EQAT_OK;
    if (!eqi_view_same_shape(&tensor->v, &grad->v)) {
        char a[EQI_SHAPE_TEXT], b[EQI_SHAPE_TEXT];
        return eqi_fail(tape->ctx, EQAT_INVALID_ARGUMENT, "gradient: found %s, expected %s",
                        eqi_view_shape_text(&grad->v, a, sizeof a),
                        eqi_view_shape_text(&tensor->v, b, sizeof b));
    }
    /* A copy: the engine may share what it is given, and the caller's tensor stays the caller's. */
    eqi_tensor *copy;
    EQI_RETURN_IF(eqi_tensor_cast(grad,
                                  tensor->on_tape                  ? tensor->v.dtype
                                      : tensor->v.dtype == EQI_F64 ? EQI_F64
                                                                   : EQI_F32,
                                  &copy));
    eqat_status st = eqi_grad_add(tensor, copy);
    eqi_tensor_unref(copy);
    return st;
}

eqat_status eqat_tape_checkpoint(eqat_tape *tape, eqat_segment_fn segment, void *user,
                                 void (*release)(void *user), eqat_tensor *const *in, int32_t n_in,
                                 eqat_tensor **out)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(tape);
    if (segment && out && (in || n_in <= 0))
        return eqi_tape_checkpoint(tape, segment, user, release, in, n_in, out);
    if (release) release(user);
    EQI_NEED(tape->ctx, segment, out, in);
    return EQAT_OK;
}
