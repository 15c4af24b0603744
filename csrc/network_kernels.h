// Kernels of the selector networks, for every instruction set. `stride` is the distance between rows.
#pragma once

#include "factor_readout.h"

namespace brainkit {

constexpr Index kMaxVectors = 4;  // vectors in the widest block of columns

// For every row r and the columns of one block: out[r][c] = start[r][c] + sum_k left[r][k] * right[k][c].
template <typename T>
struct ProductStep {
    Index rows, depth;
    const T* left;
    Index left_row, left_column;  // distances between rows and columns, which may be a transpose's
    const T* right;
    Index right_stride;
    const T* start;
    Index start_stride;  // 0: the same row for all
    T* out;
    Index out_stride;
    // Data to prefetch: `soon_lines` cache lines with every strip of rows.
    const T* soon;
    Index soon_lines;
};

// For every row: out[r][o] = sum_c values[r][c] * head[o][c].
template <typename T>
struct HeadStep {
    Index rows, width, outputs;  // width: whole vectors
    const T* values;
    const T* head;
    Index stride;  // of both
    T* out;        // (rows, outputs)
};

// value = gelu(sums), slope = gelu'(sums), kept = sums; slope and kept may be null, value may be sums.
template <typename T>
struct GeluStep {
    Index rows, width;  // whole vectors
    const T* sums;
    Index sums_stride;
    T* value;
    T* slope;
    Index stride;  // of both
    T* kept;       // aligned
    Index kept_stride;
};

// grad[r][c] *= slope[r][c]; sums[c] += sum_r grad[r][c].
template <typename T>
struct SlopeStep {
    Index rows, width;  // whole vectors
    T* grad;
    const T* slope;
    Index stride;  // of both
    T* sums;
};

template <typename T>
struct NetworkKernels {
    Index strip;  // rows per micro-kernel of a product
    // Entry n - 1 is for blocks of n vectors.
    void (*product[kMaxVectors])(const ProductStep<T>&);
    void (*heads)(const HeadStep<T>&);
    void (*gelu)(const GeluStep<T>&);
    void (*slope)(const SlopeStep<T>&);
    // In place, whole vectors.
    void (*exponential)(T* values, Index count);
    void (*hyperbolic_tangent)(T* values, Index count);
};

}  // namespace brainkit
