/* Kernels with faults that can be planted; what launches them. */
#ifndef HOSTCUDA_FAULTS_H
#define HOSTCUDA_FAULTS_H

#include "cuda_runtime.h"

#include <stdint.h>

enum planted {
    NONE,
    BARRIER,      /* dropped between a write of shared memory and its reads */
    LAST_BARRIER, /* dropped between reads of shared memory and the next write */
    TAIL,         /* one read too many */
    SHARED_END,   /* a write past shared memory */
    LANE,         /* a lane stays away from a shuffle */
    MASK,         /* the mask of a shuffle leaves out its caller */
    TWO_BARRIERS, /* halves of a block at different barriers */
    SYNCWARP,     /* dropped */
    NO_FENCE,     /* a shuffle in its place, which orders no memory */
    PART_SYNC,    /* lanes of one part of a warp read what another part wrote */
    SHARED_COUNT, /* a plain read of a counter in shared memory that others change atomically */
    FRAGMENT,     /* two registers of an mma operand swapped */
    OTHER_LANE,   /* reads what this one reads before and changes later */
    OTHER_WARP,   /* changes what this one reads */
    OTHER_BLOCK,  /* likewise */
    PLAIN_SUM,    /* across blocks, in place of an atomic */
    PLAIN_READ,   /* of what other blocks change atomically */
    OTHER_STACK,  /* a read of another thread's variable */
    NULL_POINTER
};

/* y[r] = x[r] / rms(x[r]) * gain: rows of n floats, a block each. */
cudaError_t normalize(cudaStream_t s, float *y, const float *x, const float *gain, int rows, int n,
                      planted fault);
/* out += the sum of x in whole numbers, by 4 blocks. */
cudaError_t sum_all(cudaStream_t s, int *out, const int *x, int n, planted fault);
/* c[m,n] = a[m,k] b[n,k]^T in bf16 by fragments of mma.m16n8k16. */
cudaError_t product(cudaStream_t s, float *c, const uint16_t *a, const uint16_t *b, int m, int n,
                    int k, planted fault);
/* Each warp turns its 32 numbers round through shared memory. */
cudaError_t reverse(cudaStream_t s, int *y, const int *x, int n, planted fault);
/* Parts of 4 to 16 lanes add up their numbers in shared memory, each its own number of times. */
cudaError_t parts(cudaStream_t s, int *y, const int *x, planted fault);
/* y[v] = how many of the n numbers are v, of 16; by one block. */
cudaError_t count(cudaStream_t s, int *y, const int *x, int n, planted fault);
/* One of 128 threads reads *y twice and changes it; when planted, several do. */
cudaError_t change(cudaStream_t s, int *y, planted fault);
/* Accesses to 4 numbers in shared memory by 64 threads, and what orders them: for each round and
 * thread an access, then a barrier, __syncwarp of a mask, or nothing. */
struct step {
    enum { IDLE, READ, WRITE, ATOMIC } what;
    int cell;
    unsigned mask; /* 0: none */
    bool barrier;
};
cudaError_t interpret(cudaStream_t s, int *y, const step *steps, int rounds);
/* y = x, 4 floats at a time. */
cudaError_t copy4(cudaStream_t s, float *y, const float *x, int n);
/* y = x, by bytes, halves and words in turn. */
cudaError_t copy_mixed(cudaStream_t s, unsigned char *y, const unsigned char *x, int n);
cudaError_t fill(cudaStream_t s, float *y, float value, int n);
/* y[i] += x[i] */
cudaError_t add(cudaStream_t s, float *y, const float *x, int n);
/* Threads read a variable of thread 0, through shared memory. */
cudaError_t peek(cudaStream_t s, int *y, planted fault);
/* Ballots, counts and conversions; y gets 8 numbers. */
cudaError_t votes(cudaStream_t s, int *y);
cudaError_t configured(cudaStream_t s, dim3 grid, dim3 block, size_t shared);
cudaError_t raise_shared(int size);
struct big {
    unsigned char bytes[4096];
};
cudaError_t with_parameters(cudaStream_t s, bool too_many);
/* Many accesses, for their time: rounds of y[i] += x[i] over n floats. */
cudaError_t busy(cudaStream_t s, float *y, const float *x, int n, int rounds);

#endif
