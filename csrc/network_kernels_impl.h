// The micro-kernels of the selector networks, templates over a type of vector: see kernels_impl.h, which includes this.
#pragma once

#include <math.h>

#include "network_kernels.h"

namespace brainkit {
namespace {

// Functions of float32 vectors. V::at_least and V::at_most keep a NaN.
template <typename V, typename T = typename V::Number>
struct Functions {
    using Vector = typename V::Vector;

    // scale * 2^y. The polynomial (minimax) is within 1.9e-9 of 2^y relative to it, and the rounding of y adds
    // 6e-8 * |y|; exactly 0 below y = -127, infinite from 127.5 on.
    static BRAINKIT_INLINE Vector power(Vector y, float scale) {
        y = V::at_most(V::at_least(y, V::fill(-127.0f)), V::fill(128.0f));
        // Adding a number of this size rounds y to an integer, which is then in the lowest bits, with its bias.
        const Vector shift = V::fill(12582912.0f + 127.0f);
        const Vector shifted = V::add(y, shift);
        const Vector rest = V::subtract(y, V::subtract(shifted, shift));
        Vector p = V::fill(0.00015345812f * scale);
        p = V::multiply_add(p, rest, V::fill(0.0013399932f * scale));
        p = V::multiply_add(p, rest, V::fill(0.009618489f * scale));
        p = V::multiply_add(p, rest, V::fill(0.055503288f * scale));
        p = V::multiply_add(p, rest, V::fill(0.24022647f * scale));
        p = V::multiply_add(p, rest, V::fill(0.69314721f * scale));
        p = V::multiply_add(p, rest, V::fill(1.0f * scale));
        return V::multiply(p, V::exponent_from_low_bits(shifted));
    }

    // The tail of the normal distribution is Q(a) = density(a) * sum_k c_k t^k with t = 1 / (1 + 0.3 a), the form of
    // Hastings (Abramowitz and Stegun, 7.1.26), with eight terms from a weighted minimax fit: the error is 7.5e-9, far
    // out 7.5e-7 of the value. With float32 rounding gelu is accurate to 1.2e-7 max(1, |x|), its slope to 2e-7, which
    // tests/ops/test_selector_networks.py checks.
    static BRAINKIT_INLINE Vector gelu(Vector x, Vector* slope) {
        const Vector density = power(V::multiply(V::multiply(x, V::fill(-0.72134752f)), x), 0.39894228f);
        const Vector a = V::at_most(V::absolute(x), V::fill(14.0f));
        const Vector t = V::reciprocal(V::multiply_add(a, V::fill(0.3f), V::fill(1.0f)));
        Vector p = V::fill(0.08862693788f);
        p = V::multiply_add(p, t, V::fill(-0.38915186088f));
        p = V::multiply_add(p, t, V::fill(0.50578364911f));
        p = V::multiply_add(p, t, V::fill(-0.12095359995f));
        p = V::multiply_add(p, t, V::fill(0.31332909079f));
        p = V::multiply_add(p, t, V::fill(0.25368511180f));
        p = V::multiply_add(p, t, V::fill(0.30208489279f));
        p = V::multiply_add(p, t, V::fill(0.29990993429f));
        const Vector tail = V::multiply(V::multiply(p, t), density);
        const Vector below = V::where_negative(x, tail, V::subtract(V::fill(1.0f), tail));
        *slope = V::multiply_add(x, density, below);
        return V::multiply(x, below);
    }

    static BRAINKIT_INLINE Vector exponential(Vector x) { return power(V::multiply(x, V::fill(1.44269504f)), 1.0f); }

    // From e^(-2|x|); near zero, where that loses digits, an odd polynomial (minimax, 4.4e-9).
    static BRAINKIT_INLINE Vector hyperbolic_tangent(Vector x) {
        const Vector a = V::absolute(x);
        const Vector e = power(V::multiply(a, V::fill(-2.88539008f)), 1.0f);
        const Vector one = V::fill(1.0f);
        const Vector far = V::multiply(V::subtract(one, e), V::reciprocal(V::add(one, e)));
        const Vector square = V::multiply(a, a);
        Vector p = V::fill(-0.0057049335f);
        p = V::multiply_add(p, square, V::fill(0.020639041f));
        p = V::multiply_add(p, square, V::fill(-0.053739702f));
        p = V::multiply_add(p, square, V::fill(0.13331442f));
        p = V::multiply_add(p, square, V::fill(-0.33333282f));
        const Vector near = V::multiply_add(V::multiply(p, square), a, a);
        const Vector size = V::where_negative(V::subtract(a, V::fill(0.625f)), near, far);
        return V::where_negative(x, V::subtract(V::zero(), size), size);
    }
};

// float64, for tests: the standard library's functions, one number at a time.
template <typename V>
struct Functions<V, double> {
    using Vector = typename V::Vector;

    static BRAINKIT_INLINE Vector gelu(Vector x, Vector* slope) {
        double at[V::kLanes], slopes[V::kLanes];
        V::store(at, x);
        for (int i = 0; i < V::kLanes; ++i) {
            const double below = 0.5 * ::erfc(-0.70710678118654752440 * at[i]);
            slopes[i] = below + at[i] * (0.39894228040143267794 * ::exp(-0.5 * at[i] * at[i]));
            at[i] *= below;
        }
        *slope = V::load(slopes);
        return V::load(at);
    }

    template <typename Function>
    static BRAINKIT_INLINE Vector each(Vector x, Function function) {
        double at[V::kLanes];
        V::store(at, x);
        for (double& value : at) value = function(value);
        return V::load(at);
    }

    static BRAINKIT_INLINE Vector exponential(Vector x) {
        return each(x, [](double value) { return ::exp(value); });
    }
    static BRAINKIT_INLINE Vector hyperbolic_tangent(Vector x) {
        return each(x, [](double value) { return ::tanh(value); });
    }
};

// The sum over depth starts at zero, and `start` is added last: summing in two steps is far more accurate than one sum.
template <typename V, int R, int C>
BRAINKIT_INLINE void product_strip(const ProductStep<typename V::Number>& step, Index row) {
    using T = typename V::Number;
    using Vector = typename V::Vector;
    Vector sum[R][C];
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) sum[r][c] = V::zero();
    }
    const Index left_row = step.left_row;
    const T* left = step.left + row * left_row;
    const T* right = step.right;
    for (Index k = 0; k < step.depth; ++k, left += step.left_column, right += step.right_stride) {
        Vector t[C];
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) t[c] = V::load(right + c * V::kLanes);
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            const Vector q = V::fill(left[r * left_row]);
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) sum[r][c] = V::multiply_add(q, t[c], sum[r][c]);
        }
    }
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        const T* start = step.start + (row + r) * step.start_stride;
        T* out = step.out + (row + r) * step.out_stride;
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) {
            V::store(out + c * V::kLanes, V::add(V::load(start + c * V::kLanes), sum[r][c]));
        }
    }
}

// Rows after the last whole strip are processed by twos and ones: no padding is needed.
template <typename V, int R, int C>
void product_kernel(const ProductStep<typename V::Number>& step) {
    constexpr Index kLine = 64 / sizeof(typename V::Number);
    const typename V::Number* soon = step.soon;
    Index row = 0;
    for (; row + R <= step.rows; row += R) {
        for (Index i = 0; i < step.soon_lines; ++i, soon += kLine) BRAINKIT_PREFETCH_FAR(soon);
        product_strip<V, R, C>(step, row);
    }
    for (; row + 2 <= step.rows; row += 2) product_strip<V, 2, C>(step, row);
    for (; row < step.rows; ++row) product_strip<V, 1, C>(step, row);
}

// Two rows and four outputs at a time; if there are fewer, the last one is repeated and its extra results discarded.
template <typename V>
void head_kernel(const HeadStep<typename V::Number>& step) {
    using T = typename V::Number;
    using Vector = typename V::Vector;
    for (Index row = 0; row < step.rows; row += 2) {
        const bool pair = row + 1 < step.rows;
        const T* values[2] = {step.values + row * step.stride, step.values + (row + (pair ? 1 : 0)) * step.stride};
        for (Index first = 0; first < step.outputs; first += 4) {
            const Index count = step.outputs - first < 4 ? step.outputs - first : 4;
            const T* head[4];
            for (Index o = 0; o < 4; ++o) head[o] = step.head + (first + (o < count ? o : count - 1)) * step.stride;
            Vector sum[2][4];
            BRAINKIT_UNROLL
            for (int o = 0; o < 4; ++o) sum[0][o] = sum[1][o] = V::zero();
            for (Index column = 0; column < step.width; column += V::kLanes) {
                const Vector one = V::load(values[0] + column);
                const Vector two = V::load(values[1] + column);
                BRAINKIT_UNROLL
                for (int o = 0; o < 4; ++o) {
                    const Vector h = V::load(head[o] + column);
                    sum[0][o] = V::multiply_add(one, h, sum[0][o]);
                    sum[1][o] = V::multiply_add(two, h, sum[1][o]);
                }
            }
            for (int r = 0; r < (pair ? 2 : 1); ++r) {
                T four[4] = {};
                V::add_sum4(sum[r][0], sum[r][1], sum[r][2], sum[r][3], four);
                T* out = step.out + (row + r) * step.outputs + first;
                for (Index o = 0; o < count; ++o) out[o] = four[o];
            }
        }
    }
}

template <typename V, bool kWithSlope, bool kWithKept>
BRAINKIT_INLINE void gelu_rows(const GeluStep<typename V::Number>& step) {
    using Vector = typename V::Vector;
    for (Index row = 0; row < step.rows; ++row) {
        const Index at = row * step.stride;
        for (Index column = 0; column < step.width; column += V::kLanes) {
            const Vector x = V::load(step.sums + row * step.sums_stride + column);
            Vector slope;
            const Vector value = Functions<V>::gelu(x, &slope);
            V::store(step.value + at + column, value);
            if constexpr (kWithSlope) V::store(step.slope + at + column, slope);
            if constexpr (kWithKept) V::stream(step.kept + row * step.kept_stride + column, x);
        }
    }
    if constexpr (kWithKept) V::end_stream();
}

template <typename V>
void gelu_kernel(const GeluStep<typename V::Number>& step) {
    if (step.slope != nullptr) {
        gelu_rows<V, true, false>(step);
    } else if (step.kept != nullptr) {
        gelu_rows<V, false, true>(step);
    } else {
        gelu_rows<V, false, false>(step);
    }
}

template <typename V, int C>
BRAINKIT_INLINE void slope_columns(const SlopeStep<typename V::Number>& step, Index column) {
    using Vector = typename V::Vector;
    Vector sum[C];
    BRAINKIT_UNROLL
    for (int c = 0; c < C; ++c) sum[c] = V::zero();
    for (Index row = 0; row < step.rows; ++row) {
        const Index at = row * step.stride + column;
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) {
            const Vector grad =
                V::multiply(V::load(step.grad + at + c * V::kLanes), V::load(step.slope + at + c * V::kLanes));
            V::store(step.grad + at + c * V::kLanes, grad);
            sum[c] = V::add(sum[c], grad);
        }
    }
    BRAINKIT_UNROLL
    for (int c = 0; c < C; ++c) {
        typename V::Number* to = step.sums + column + c * V::kLanes;
        V::store(to, V::add(V::load(to), sum[c]));
    }
}

template <typename V>
void slope_kernel(const SlopeStep<typename V::Number>& step) {
    Index column = 0;
    for (; column + 4 * V::kLanes <= step.width; column += 4 * V::kLanes) slope_columns<V, 4>(step, column);
    for (; column < step.width; column += V::kLanes) slope_columns<V, 1>(step, column);
}

template <typename V>
void exponential_kernel(typename V::Number* values, Index count) {
    for (Index i = 0; i < count; i += V::kLanes) V::store(values + i, Functions<V>::exponential(V::load(values + i)));
}

template <typename V>
void hyperbolic_tangent_kernel(typename V::Number* values, Index count) {
    for (Index i = 0; i < count; i += V::kLanes) {
        V::store(values + i, Functions<V>::hyperbolic_tangent(V::load(values + i)));
    }
}

template <typename V, int R, int C, int N = 1>
void fill_products(NetworkKernels<typename V::Number>& table) {
    table.product[N - 1] = product_kernel<V, R, N>;
    if constexpr (N < C) fill_products<V, R, C, N + 1>(table);
}

template <typename V, int R, int C>
NetworkKernels<typename V::Number> network_kernels() {
    NetworkKernels<typename V::Number> table{
        R, {}, head_kernel<V>, gelu_kernel<V>, slope_kernel<V>, exponential_kernel<V>, hyperbolic_tangent_kernel<V>};
    fill_products<V, R, C>(table);
    return table;
}

}  // namespace
}  // namespace brainkit
