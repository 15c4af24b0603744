// Vectors of 256 bits.
#pragma once

#include <immintrin.h>

#include "kernels_impl.h"

namespace brainkit {
namespace {

template <typename T>
struct Avx2;

template <>
struct Avx2<float> {
    using Number = float;
    using Vector = __m256;
    static constexpr int kLanes = 8;

    static BRAINKIT_INLINE Vector zero() { return _mm256_setzero_ps(); }
    static BRAINKIT_INLINE Vector fill(float value) { return _mm256_set1_ps(value); }
    static BRAINKIT_INLINE Vector load(const float* from) { return _mm256_loadu_ps(from); }
    static BRAINKIT_INLINE void store(float* to, Vector value) { _mm256_storeu_ps(to, value); }
    static BRAINKIT_INLINE Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
    static BRAINKIT_INLINE Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
    static BRAINKIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
    static BRAINKIT_INLINE Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
    // If either operand is NaN, these two instructions return their second operand.
    static BRAINKIT_INLINE Vector at_least(Vector a, Vector bound) { return _mm256_max_ps(bound, a); }
    static BRAINKIT_INLINE Vector at_most(Vector a, Vector bound) { return _mm256_min_ps(bound, a); }
    static BRAINKIT_INLINE Vector absolute(Vector a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
    static BRAINKIT_INLINE Vector reciprocal(Vector a) { return _mm256_div_ps(_mm256_set1_ps(1.0f), a); }
    static BRAINKIT_INLINE Vector where_negative(Vector a, Vector then, Vector otherwise) {
        return _mm256_blendv_ps(otherwise, then, a);
    }
    static BRAINKIT_INLINE Vector exponent_from_low_bits(Vector a) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23));
    }
    static BRAINKIT_INLINE void stream(float* to, Vector value) { _mm256_stream_ps(to, value); }
    static BRAINKIT_INLINE void end_stream() { _mm_sfence(); }
    // out[i] += sum of the lanes of the i-th
    static BRAINKIT_INLINE void add_sum4(Vector a, Vector b, Vector c, Vector d, float* out) {
        const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        const __m256 all = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
        const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
        _mm_storeu_ps(out, _mm_add_ps(_mm_loadu_ps(out), sums));
    }
    // A square of the width of a vector.
    static BRAINKIT_INLINE void transpose(const float* from, Index from_stride, float* to, Index to_stride) {
        __m256 a[8], b[8];
        BRAINKIT_UNROLL
        for (int i = 0; i < 8; ++i) a[i] = load(from + i * from_stride);
        BRAINKIT_UNROLL
        for (int i = 0; i < 8; i += 2) {
            b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
            b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
        }
        BRAINKIT_UNROLL
        for (int i = 0; i < 8; i += 4) {
            BRAINKIT_UNROLL
            for (int j = 0; j < 2; ++j) {
                a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
                a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
            }
        }
        BRAINKIT_UNROLL
        for (int j = 0; j < 4; ++j) {
            store(to + j * to_stride, _mm256_permute2f128_ps(a[j], a[j + 4], 0x20));
            store(to + (j + 4) * to_stride, _mm256_permute2f128_ps(a[j], a[j + 4], 0x31));
        }
    }
};

template <>
struct Avx2<double> {
    using Number = double;
    using Vector = __m256d;
    static constexpr int kLanes = 4;

    static BRAINKIT_INLINE Vector zero() { return _mm256_setzero_pd(); }
    static BRAINKIT_INLINE Vector fill(double value) { return _mm256_set1_pd(value); }
    static BRAINKIT_INLINE Vector load(const double* from) { return _mm256_loadu_pd(from); }
    static BRAINKIT_INLINE void store(double* to, Vector value) { _mm256_storeu_pd(to, value); }
    static BRAINKIT_INLINE Vector add(Vector a, Vector b) { return _mm256_add_pd(a, b); }
    static BRAINKIT_INLINE Vector multiply(Vector a, Vector b) { return _mm256_mul_pd(a, b); }
    static BRAINKIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
    static BRAINKIT_INLINE void stream(double* to, Vector value) { _mm256_stream_pd(to, value); }
    static BRAINKIT_INLINE void end_stream() { _mm_sfence(); }
    static BRAINKIT_INLINE void add_sum4(Vector a, Vector b, Vector c, Vector d, double* out) {
        const __m256d ab = _mm256_hadd_pd(a, b);  // a0+a1, b0+b1, a2+a3, b2+b3
        const __m256d cd = _mm256_hadd_pd(c, d);
        const __m256d sums = _mm256_add_pd(_mm256_permute2f128_pd(ab, cd, 0x20), _mm256_permute2f128_pd(ab, cd, 0x31));
        _mm256_storeu_pd(out, _mm256_add_pd(_mm256_loadu_pd(out), sums));
    }
    static BRAINKIT_INLINE void transpose(const double* from, Index from_stride, double* to, Index to_stride) {
        transpose_plainly<double, kLanes>(from, from_stride, to, to_stride);
    }
};

}  // namespace
}  // namespace brainkit
