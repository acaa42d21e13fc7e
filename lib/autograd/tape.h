/* The tape: ops append what they did, backward walks it in reverse. */
#ifndef EQI_AUTOGRAD_TAPE_H
#define EQI_AUTOGRAD_TAPE_H

#include "autograd/grad.h"
#include "backend/backend.h"

#define EQI_NODE_TENSORS 10
#define EQI_NODE_ATTR 64

typedef struct eqat_tape eqi_tape;
typedef struct eqi_node eqi_node;

/* One kind of operation. A row for every op stands in lib/ops/table.c; a test walks it. */
typedef struct eqi_op {
    const char *name;
    /* Adds to the gradients of the inputs that require one; NULL only for ops without
     * differentiable inputs. */
    eqat_status (*backward)(eqi_tape *tape, eqi_node *node);
    void (*release)(eqi_node *node); /* frees what attr owns; may be NULL */
    /* What backward does not read: bit i for the data of in[i], EQI_OUT for that of out. Their
     * memory may go before. */
    unsigned idle;
    bool captures; /* backward may reach leaves that are not among the inputs */
} eqi_op;

#define EQI_IN(i) (1u << (i))
#define EQI_OUT (1u << 31)

struct eqi_node {
    const eqi_op *op;
    eqi_tensor *in[EQI_NODE_TENSORS]; /* counted; NULL where an optional input is absent */
    eqi_tensor *out;                  /* counted */
    eqi_tensor *saved[4];             /* counted; rstd, lse, stored gradients */
    _Alignas(16) unsigned char attr[EQI_NODE_ATTR]; /* the op's own descriptor */
};

/* Who consumes gradients while backward runs. */
typedef struct eqi_sink {
    eqat_status (*take)(void *user,
                        eqi_tensor *leaf); /* its gradient is complete, and may be dropped */
    bool (*update)(void *user, eqi_tensor *leaf,
                   eqi_update *update); /* the step to make with it; false: it is to be stored */
    void *user;
} eqi_sink;

/* Of this folder but for ctx and handle. */
struct eqat_tape {
    eqi_ctx *ctx;
    eqi_handle handle;
    eqi_node *nodes;
    size_t count, capacity;
    size_t captures;      /* nodes whose op does */
    const eqi_sink *sink; /* of the walk in progress, or NULL */
    bool recording;
    bool replay;  /* records a segment again for its gradient: nobody reads the segment's output */
    bool last;    /* the segment makes nothing but its output any more */
    bool touched; /* an op would have been recorded had recording been on */
    bool offload; /* eqi_tape_set_offload */
};

eqat_status eqi_tape_create(eqi_ctx *ctx, eqi_tape **out);
void eqi_tape_free(eqi_tape *tape); /* NULL is fine */
/* Outputs that the caller still holds become constants. */
void eqi_tape_clear(eqi_tape *tape);
void eqi_tape_set_recording(eqi_tape *tape, bool on);
/* A segment says with true that from here on it makes nothing but its output, with false that it is
 * done. Recorded again for its gradient, nobody reads that output: ops that ask eqi_tape_is_blind
 * leave its memory as it is. */
void eqi_tape_set_last(eqi_tape *tape, bool on);
bool eqi_tape_is_blind(const eqi_tape *tape);
/* Asks whoever records segments to let their inputs wait on the host (tensor/tensor.h) for
 * backward, which brings them back. */
void eqi_tape_set_offload(eqi_tape *tape, bool on);
/* Whether backward may reach leaves that are not among the inputs of a node. */
bool eqi_tape_captures(const eqi_tape *tape);

/* What an op calls when it has computed `out`. When recording and any of in[] requires a gradient,
 * appends a node that refers to all tensors, copies attr and marks out; otherwise does nothing.
 * `saved` may hold NULLs. On failure the caller still owns out. */
eqat_status eqi_tape_record(eqi_tape *tape, const eqi_op *op, eqi_tensor *const *in, int n_in,
                            eqi_tensor *out, eqi_tensor *const *saved, int n_saved,
                            const void *attr, size_t attr_size);
/* The same without asking what the inputs require. */
eqat_status eqi_tape_append(eqi_tape *tape, const eqi_op *op, eqi_tensor *const *in, int n_in,
                            eqi_tensor *out, eqi_tensor *const *saved, int n_saved,
                            const void *attr, size_t attr_size);
/* True when a call with these inputs will be recorded: the op then computes what backward needs. */
bool eqi_tape_records(const eqi_tape *tape, eqi_tensor *const *in, int n_in);

/* d loss / d everything that requires it, times `scale`; gradients of leaves accumulate over calls.
 * The tape is cleared, also on failure (gradients of leaves are then unspecified: drop them). loss
 * is a scalar on this tape. */
eqat_status eqi_tape_backward(eqi_tape *tape, eqi_tensor *loss, double scale);
/* The same with somebody who consumes every leaf's gradient as soon as no node left on the tape
 * adds to it. Leaves that ops capture are not handed over. */
eqat_status eqi_tape_backward_into(eqi_tape *tape, eqi_tensor *loss, double scale,
                                   const eqi_sink *sink);
/* For backward rules that can step a parameter instead of storing its gradient: true when t's
 * gradient would be complete with theirs and the sink wants it so. */
bool eqi_tape_takes_update(const eqi_tape *tape, eqi_tensor *t, eqi_update *update);
/* The same from a given gradient of `out` instead of a scalar loss. */
eqat_status eqi_tape_backward_from(eqi_tape *tape, eqi_tensor *out, const eqi_tensor *grad);

/* Recomputation (Chen et al. 2016): runs fn without recording; backward runs it again, recorded on
 * a tape of its own, and goes through that, with bit for bit the gradients of the plain run.
 * Parameters that fn captures in `user` receive gradients as usual. fn must be a pure function of
 * inputs and parameters. `release` (may be NULL) frees user once, when the node goes or at once
 * when there is none, also on failure. */
typedef eqat_status (*eqi_segment_fn)(eqi_tape *tape, void *user, eqi_tensor *const *in, int n_in,
                                      eqi_tensor **out);
eqat_status eqi_tape_checkpoint(eqi_tape *tape, eqi_segment_fn fn, void *user,
                                void (*release)(void *user), eqi_tensor *const *in, int n_in,
                                eqi_tensor **out);
extern const eqi_op eqi_checkpoint_op;

#endif
