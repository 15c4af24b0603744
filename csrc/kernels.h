// The kernels of each instruction set: inner products over blocks of channels, and moving data.
#pragma once

#include "factor_readout.h"
#include "network_kernels.h"

namespace brainkit {

constexpr Index kTile = 48;  // most vertices of a tile, the rows of the products below; a multiple of the strips

// A block of channels is `vectors` vectors of `lanes` numbers. A strip is the number of rows that a micro-kernel
// processes at a time: rows are padded to whole strips. Results of padding rows are never read.

// For every row i: out[i] += sum_d weight[i][d] * sum_k coefficients[i][k] * tokens[k][d], where k runs over segments,
// then layers, and segment[s] points at `layers` rows of one block. May add zeros to up to 3 entries of out after the
// last.
template <typename T>
struct ForwardStep {
    const T* const* segment;
    Index segments, layers;
    Index rows;
    const T* coefficients;  // (rows, coefficient_stride)
    Index coefficient_stride;
    const T* weight;  // (rows, block)
    T* out;           // (rows,)
    Index ahead;      // offset of the tokens to prefetch
};

// With u[i][k][d] = sum_b grad[b][i] * tokens[b][k][d], for every row i:
//   grad_weight[i][d]       += sum_k coefficients[i][k] * u[i][k][d]
//   grad_coefficients[i][k] += sum_d weight[i][d] * u[i][k][d]
// If grad is null, there is one image, and u is its tokens. May add zeros to up to 3 entries of grad_coefficients after
// the last.
template <typename T>
struct VertexStep {
    const T* tokens;     // (images, terms, block)
    Index image_stride;  // of tokens
    Index terms, images;
    Index rows;
    const T* grad;  // (images, grad_stride)
    Index grad_stride;
    const T* coefficients;
    T* grad_coefficients;
    Index coefficient_stride;
    const T* weight;  // (rows, block)
    T* grad_weight;   // (rows, block)
    Index ahead;      // offset of the tokens to prefetch
};

// For every term k: out[offsets[k] + d] += sum_i coefficients[i][k] * factor[i] * weight[i][d]. A null factor counts as
// ones. Terms are padded to whole strips here, not rows.
template <typename T>
struct TokenStep {
    const T* weight;  // (rows, block)
    const T* factor;  // (rows,)
    T* scaled;        // (rows, block), for the products of the two
    Index rows, terms;
    const T* coefficients;
    Index coefficient_stride;
    T* out;
    const Index* offsets;  // (terms,)
};

// For every row i: to[i][...] = factor[i] * from[i][...], whole vectors up to the stride.
template <typename T>
struct ScaleStep {
    const T* factor;  // (rows,)
    const T* from;    // (rows, stride)
    T* to;            // (rows, stride)
    Index rows, stride;
};

// A vertex's shares of the segments and its layer weights, whose products are its coefficients. Layer weights are
// padded with zeros to whole vectors.
template <typename T>
struct SelectorStep {
    const T* shares;  // (rows, share_stride)
    Index share_stride;
    const T* layer_weights;  // (rows, layer_stride)
    Index layer_stride;
    Index rows, segments, layers;
    Index coefficient_stride;
};

// Gathers or scatters rows of a block: row i is row members[i] of an array of rows of `stride` numbers. Of the block's
// `width` channels, the first `real` are moved; gathered rows are padded with zeros.
struct Moves {
    const std::int32_t* members;
    Index rows, stride, real, width;
};

template <typename T>
struct Kernels {
    const char* name;
    Index lanes;
    Index vectors;  // the widest block's
    // Entry n - 1 is for blocks of n vectors.
    Index strip[kMaxVectors];
    void (*forward[kMaxVectors])(const ForwardStep<T>&);
    void (*vertices[kMaxVectors])(const VertexStep<T>&);
    void (*tokens[kMaxVectors])(const TokenStep<T>&);
    void (*scale)(const ScaleStep<T>&);
    // For every row i, segment s and layer l: coefficients[i][s * layers + l] = shares[i][s] * layer_weights[i][l].
    // Writes up to one vector beyond the end of every row.
    void (*outer)(const SelectorStep<T>&, T* coefficients);
    // The gradients of both from those of the coefficients; grad_shares (rows, share_stride), grad_layers
    // (rows, layer_stride). Reads up to one vector beyond the end of every row.
    void (*outer_backward)(const SelectorStep<T>&, const T* grad, T* grad_shares, T* grad_layers);
    void (*gather)(const Moves&, const T* from, T* to);
    void (*scatter)(const Moves&, const T* from, T* to);
    // to[j * to_stride + i] = from[i * from_stride + j] for i < rows, j < columns
    void (*transpose)(const T* from, Index from_stride, Index rows, Index columns, T* to, Index to_stride);
    NetworkKernels<T> networks;
};

// The kernels of the best instruction set here, or of the one named by the environment variable BRAINKIT_CPU.
template <typename T>
const Kernels<T>& kernels();

// Null if the processor or the compiler does not have it.
template <typename T>
const Kernels<T>* portable_kernels();
template <typename T>
const Kernels<T>* avx2_kernels();
template <typename T>
const Kernels<T>* avx512_kernels();

}  // namespace brainkit
