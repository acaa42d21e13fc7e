/* Gradients of tensors, as backward rules add to them. */
#ifndef EQI_AUTOGRAD_GRAD_H
#define EQI_AUTOGRAD_GRAD_H

#include "tensor/tensor.h"

/* The gradient buffer of t, created on first use; *acc tells whether it holds a
 * value to add to. *grad is NULL when t is absent or requires no gradient. Leaves get f32, tape
 * outputs their own dtype (f64 stays f64). */
eqat_status eqi_grad_of(eqi_tensor *t, eqi_tensor **grad, bool *acc);
/* For rules whose gradient stands in a tensor of its own: adds g (same shape) to the
 * gradient of t. Shares g instead of copying where nobody can tell; a shared gradient is copied
 * before eqi_grad_of hands it out. */
eqat_status eqi_grad_add(eqi_tensor *t, eqi_tensor *g);
/* The same, taking over the caller's reference, also on failure. */
eqat_status eqi_grad_give(eqi_tensor *t, eqi_tensor *g);
void eqi_tensor_zero_grad(eqi_tensor *t); /* drops the gradient; the next backward starts afresh */

#endif
