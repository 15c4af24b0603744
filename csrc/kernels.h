// The inner products, once for every instruction set: the best that the processor has is chosen at run time.
#pragma once

#include "factor_readout.h"
#include "network_kernels.h"

namespace brainkit {

constexpr Index kTile = 48;  // vertices of a tile at most: the rows of the products below; strips divide it

// One block of channels is `vectors` vectors of `lanes` numbers. A strip is the number of rows that a micro-kernel
// takes at a time: rows are padded to whole strips, with zeros.

// For every row i: out[i] += sum_d weight[i][d] * sum_k coefficients[i][k] * tokens[k][d], where k runs over segments,
// then layers, and segment[s] points at `layers` rows of one block.
template <typename T>
struct ForwardStep {
    const T* const* segment;
    Index segments, layers;
    Index rows;
    const T* coefficients;  // (rows, coefficient_stride)
    Index coefficient_stride;
    const T* weight;  // (rows, block)
    T* out;           // (rows,)
};

// With u[i][k][d] = sum_b grad[b][i] * tokens[k][b][d], for every row i:
//   grad_weight[i][d]       += sum_k coefficients[i][k] * u[i][k][d]
//   grad_coefficients[i][k] += sum_d weight[i][d] * u[i][k][d]
// May add zeros to up to 3 entries of grad_coefficients after the last.
template <typename T>
struct VertexStep {
    const T* tokens;  // (terms, images, block)
    Index terms, images;
    Index rows;
    const T* grad;  // (images, grad_stride)
    Index grad_stride;
    const T* coefficients;
    T* grad_coefficients;
    Index coefficient_stride;
    const T* weight;  // (rows, block)
    T* grad_weight;   // (rows, block)
};

// For every term k: out[k][d] += sum_i coefficients[i][k] * factor[i] * weight[i][d]. Terms are padded to whole strips
// here, and rows are not.
template <typename T>
struct TokenStep {
    const T* weight;  // (rows, block)
    const T* factor;  // (rows,)
    T* values;        // (rows, block), for the products of the two
    Index rows, terms;
    const T* coefficients;
    Index coefficient_stride;
    T* const* out;  // (terms,) pointers to rows of one block
};

// For every row i, segment s and layer l: coefficients[i][s * layers + l] = shares[i][s] * layer_weights[i][l].
// Reads and writes up to a vector more at the end of every row.
template <typename T>
struct OuterStep {
    const T* shares;  // (rows, share_stride)
    Index share_stride;
    const T* layer_weights;
    Index layer_stride;
    Index rows, segments, layers;
    T* coefficients;
    Index coefficient_stride;
};

template <typename T>
struct Kernels {
    const char* name;
    Index lanes;
    Index strip, vectors;  // the widest block's
    // Entry n - 1 is for blocks of n vectors.
    void (*forward[kMaxVectors])(const ForwardStep<T>&);
    void (*vertices[kMaxVectors])(const VertexStep<T>&);
    void (*tokens[kMaxVectors])(const TokenStep<T>&);
    void (*outer)(const OuterStep<T>&);
    NetworkKernels<T> networks;
};

// Those of the best instruction set here, or of the one that the environment variable BRAINKIT_CPU names.
template <typename T>
const Kernels<T>& kernels();

// Where the processor and the compiler have it, else null.
template <typename T>
const Kernels<T>* portable_kernels();
template <typename T>
const Kernels<T>* avx2_kernels();
template <typename T>
const Kernels<T>* avx512_kernels();

}  // namespace brainkit
