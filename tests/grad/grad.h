#ifndef TESTS_GRAD_GRAD_H
#define TESTS_GRAD_GRAD_H

#include "engine.h"

enum { INPUTS = 6 };

typedef enum kind {
    NONE,
    X,    /* activation of the compute dtype, trains */
    P,    /* parameter, trains */
    RULE, /* parameter, trains, but not smooth: straight_through.c has its rule */
    C,    /* constant parameter */
    I,    /* constant i32 */
    U     /* constant packed codes */
} kind;

typedef struct grad_case {
    const char *name;
    const char *op; /* row of eqi_op_table that it exercises */
    struct {
        kind kind;
        dims shape;
    } in[INPUTS];
    eqat_status (*run)(eqi_tape *tape, eqi_dtype dtype, eqi_tensor *const *in, eqi_tensor **out);
    void (*prepare)(eqi_tensor *const *in); /* over normal values, or zeros; may be NULL */
    bool gaps;                              /* only with inputs that are not contiguous */
    bool no_bf16;                           /* one tensor serves as activation and parameter */
} grad_case;

extern const grad_case grad_cases[];
extern const size_t grad_case_count;

TCase *case_smooth(void);
TCase *case_backends(void);
TCase *case_straight_through(void);
TCase *case_table(void);

/* A case with its inputs. */
typedef struct sample {
    eqi_ctx *ctx;
    const grad_case *c;
    eqi_dtype dtype;
    eqi_tensor *in[INPUTS];
} sample;

typedef enum layout { DENSE, GAPS, TRANSPOSED } layout;

/* How an op is used: bits. */
enum { ONCE = 0, TWICE = 1, AGAIN = 2, THROUGH = 4, RECOMPUTED = 8 };

void sample_make(sample *s, eqi_ctx *ctx, const grad_case *c, eqi_dtype dtype, layout where);
void sample_free(sample *s);
bool trains(kind k);
/* Gradients of sum(out * random), counted; NULL for what does not train. Leaves the inputs without
 * gradients. */
void sample_gradients(sample *s, int how, eqi_tensor **grads);
double sample_value(sample *s);
void free_all(eqi_tensor **grads);

#endif
