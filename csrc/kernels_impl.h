// The micro-kernels, over a type of vector. Each instruction set includes this in a file of its own, compiled with its
// own flags. So everything here is local to that file, and nothing is used from the standard library: a function that
// the linker could share between files would bring instructions to processors that do not have them.
#pragma once

#include "kernels.h"

#if defined(_MSC_VER)
#define BRAINKIT_INLINE __forceinline
#define BRAINKIT_UNROLL
#elif defined(__clang__)
#define BRAINKIT_INLINE inline __attribute__((always_inline))
#define BRAINKIT_UNROLL _Pragma("unroll")
#else
#define BRAINKIT_INLINE inline __attribute__((always_inline))
#define BRAINKIT_UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__GNUC__)
#define BRAINKIT_PREFETCH(address) __builtin_prefetch(address, 0, 2)
#else
#define BRAINKIT_PREFETCH(address) static_cast<void>(address)
#endif

#include "network_kernels_impl.h"

namespace brainkit {
namespace {

// out[i] += sum of the lanes of sums[i]
template <typename V, int R>
BRAINKIT_INLINE void add_sums(const typename V::Vector* sums, typename V::Number* out) {
    const typename V::Vector zero = V::zero();
    BRAINKIT_UNROLL
    for (int r = 0; r < R; r += 4) {
        typename V::Number four[4];
        V::sum4(sums[r], r + 1 < R ? sums[r + 1] : zero, r + 2 < R ? sums[r + 2] : zero, r + 3 < R ? sums[r + 3] : zero,
                four);
        for (int i = 0; i < 4 && r + i < R; ++i) out[r + i] += four[i];
    }
}

template <typename V, int R, int C>
void forward_kernel(const ForwardStep<typename V::Number>& step) {
    using T = typename V::Number;
    using Vector = typename V::Vector;
    const Index stride = step.coefficient_stride;
    for (Index row = 0; row < step.rows; row += R) {
        Vector z[R][C];
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) z[r][c] = V::zero();
        }
        const T* coefficient = step.coefficients + row * stride;
        for (Index s = 0; s < step.segments; ++s) {
            const T* tokens = step.segment[s];
            for (Index layer = 0; layer < step.layers; ++layer, tokens += C * V::kLanes, ++coefficient) {
                Vector t[C];
                BRAINKIT_UNROLL
                for (int c = 0; c < C; ++c) t[c] = V::load(tokens + c * V::kLanes);
                BRAINKIT_UNROLL
                for (int r = 0; r < R; ++r) {
                    const Vector q = V::fill(coefficient[r * stride]);
                    BRAINKIT_UNROLL
                    for (int c = 0; c < C; ++c) z[r][c] = V::multiply_add(q, t[c], z[r][c]);
                }
            }
        }
        Vector sums[R];
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            const T* w = step.weight + (row + r) * C * V::kLanes;
            sums[r] = V::multiply(z[r][0], V::load(w));
            BRAINKIT_UNROLL
            for (int c = 1; c < C; ++c) sums[r] = V::multiply_add(z[r][c], V::load(w + c * V::kLanes), sums[r]);
        }
        add_sums<V, R>(sums, step.out + row);
    }
}

// Four terms at a time, so that their sums over channels are taken together.
template <typename V, int R, int C>
BRAINKIT_INLINE void vertex_terms(const VertexStep<typename V::Number>& step, Index row, Index first, int terms) {
    using T = typename V::Number;
    using Vector = typename V::Vector;
    Vector sums[R][4];
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        BRAINKIT_UNROLL
        for (int k = 0; k < 4; ++k) sums[r][k] = V::zero();
    }
    const Index stride = step.coefficient_stride;
    const T* grad = step.grad + row;
    const T* tokens = step.tokens + first * step.images * C * V::kLanes;
    for (int k = 0; k < terms; ++k) {
        Vector u[R][C];
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) u[r][c] = V::zero();
        }
        for (Index b = 0; b < step.images; ++b, tokens += C * V::kLanes) {
            Vector t[C];
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) t[c] = V::load(tokens + c * V::kLanes);
            BRAINKIT_UNROLL
            for (int r = 0; r < R; ++r) {
                const Vector q = V::fill(grad[b * step.grad_stride + r]);
                BRAINKIT_UNROLL
                for (int c = 0; c < C; ++c) u[r][c] = V::multiply_add(q, t[c], u[r][c]);
            }
        }
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            const T* w = step.weight + (row + r) * C * V::kLanes;
            T* grad_w = step.grad_weight + (row + r) * C * V::kLanes;
            const Vector q = V::fill(step.coefficients[(row + r) * stride + first + k]);
            Vector sum = V::zero();
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) {
                const Index d = c * V::kLanes;
                sum = V::multiply_add(u[r][c], V::load(w + d), sum);
                V::store(grad_w + d, V::multiply_add(q, u[r][c], V::load(grad_w + d)));
            }
            sums[r][k] = sum;
        }
    }
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) add_sums<V, 4>(sums[r], step.grad_coefficients + (row + r) * stride + first);
}

template <typename V, int R, int C>
void vertex_kernel(const VertexStep<typename V::Number>& step) {
    for (Index row = 0; row < step.rows; row += R) {
        for (Index first = 0; first < step.terms; first += 4) {
            const Index left = step.terms - first;
            vertex_terms<V, R, C>(step, row, first, left < 4 ? static_cast<int>(left) : 4);
        }
    }
}

template <typename V, int R, int C>
void token_kernel(const TokenStep<typename V::Number>& step) {
    using T = typename V::Number;
    using Vector = typename V::Vector;
    for (Index i = 0; i < step.rows; ++i) {
        const Vector q = V::fill(step.factor[i]);
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) {
            const Index d = (i * C + c) * V::kLanes;
            V::store(step.values + d, V::multiply(q, V::load(step.weight + d)));
        }
    }
    for (Index term = 0; term < step.terms; term += R) {
        Vector sum[R][C];
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) sum[r][c] = V::zero();
        }
        const T* coefficient = step.coefficients + term;
        const T* values = step.values;
        for (Index i = 0; i < step.rows; ++i, values += C * V::kLanes, coefficient += step.coefficient_stride) {
            Vector t[C];
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) t[c] = V::load(values + c * V::kLanes);
            BRAINKIT_UNROLL
            for (int r = 0; r < R; ++r) {
                const Vector q = V::fill(coefficient[r]);
                BRAINKIT_UNROLL
                for (int c = 0; c < C; ++c) sum[r][c] = V::multiply_add(q, t[c], sum[r][c]);
            }
        }
        // Sums of one tile are added to those before: summing in two steps loses far less than one long sum.
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            T* out = step.out[term + r];
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) {
                V::store(out + c * V::kLanes, V::add(V::load(out + c * V::kLanes), sum[r][c]));
            }
        }
    }
}

template <typename V>
void outer_kernel(const OuterStep<typename V::Number>& step) {
    for (Index i = 0; i < step.rows; ++i) {
        const typename V::Number* shares = step.shares + i * step.share_stride;
        const typename V::Number* from = step.layer_weights + i * step.layer_stride;
        typename V::Number* to = step.coefficients + i * step.coefficient_stride;
        for (Index s = 0; s < step.segments; ++s, to += step.layers) {
            const typename V::Vector q = V::fill(shares[s]);
            for (Index layer = 0; layer < step.layers; layer += V::kLanes) {
                V::store(to + layer, V::multiply(q, V::load(from + layer)));
            }
        }
    }
}

// Strips and block widths are chosen per instruction set, so that the sums just fit its registers.
template <typename V, int R, int C>
struct Table {
    static_assert(kTile % R == 0, "a tile must hold whole strips");
    static_assert(C <= kMaxVectors, "too many vectors in a block");

    template <int N>
    static void fill(Kernels<typename V::Number>& table) {
        table.forward[N - 1] = forward_kernel<V, R, N>;
        table.vertices[N - 1] = vertex_kernel<V, R, N>;
        table.tokens[N - 1] = token_kernel<V, R, N>;
        if constexpr (N < C) fill<N + 1>(table);
    }

    static Kernels<typename V::Number> make(const char* name) {
        Kernels<typename V::Number> table{
            name, V::kLanes, R, C, {}, {}, {}, outer_kernel<V>, network_kernels<V, R, C>()};
        fill<1>(table);
        return table;
    }
};

}  // namespace
}  // namespace brainkit
