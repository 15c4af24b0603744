// AVX-512: 32 registers of 16 floats.
#include "kernels_impl.h"

#if defined(__AVX512F__)
#include "vectors_avx2.h"

namespace brainkit {
namespace {

template <typename T>
struct Avx512;

template <>
struct Avx512<float> {
    using Number = float;
    using Vector = __m512;
    static constexpr int kLanes = 16;

    static BRAINKIT_INLINE Vector zero() { return _mm512_setzero_ps(); }
    static BRAINKIT_INLINE Vector fill(float value) { return _mm512_set1_ps(value); }
    static BRAINKIT_INLINE Vector load(const float* from) { return _mm512_loadu_ps(from); }
    static BRAINKIT_INLINE void store(float* to, Vector value) { _mm512_storeu_ps(to, value); }
    static BRAINKIT_INLINE Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
    static BRAINKIT_INLINE Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
    static BRAINKIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
    static BRAINKIT_INLINE Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
    // If either operand is NaN, these two instructions return their second operand.
    static BRAINKIT_INLINE Vector at_least(Vector a, Vector bound) { return _mm512_max_ps(bound, a); }
    static BRAINKIT_INLINE Vector at_most(Vector a, Vector bound) { return _mm512_min_ps(bound, a); }
    static BRAINKIT_INLINE Vector absolute(Vector a) { return _mm512_abs_ps(a); }
    // For positive numbers: 14 bits, doubled by a Newton step.
    static BRAINKIT_INLINE Vector reciprocal(Vector a) {
        const Vector r = _mm512_rcp14_ps(a);
        return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(a, r, _mm512_set1_ps(1.0f)), r);
    }
    static BRAINKIT_INLINE Vector where_negative(Vector a, Vector then, Vector otherwise) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_LT_OQ), otherwise, then);
    }
    static BRAINKIT_INLINE Vector exponent_from_low_bits(Vector a) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23));
    }
    static BRAINKIT_INLINE void stream(float* to, Vector value) { _mm512_stream_ps(to, value); }
    static BRAINKIT_INLINE void end_stream() { _mm_sfence(); }
    static BRAINKIT_INLINE void add_sum4(Vector a, Vector b, Vector c, Vector d, float* out) {
        const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        const __m512 all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
        const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all),
                                          _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1)));
        const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        _mm_storeu_ps(out, _mm_add_ps(_mm_loadu_ps(out), sums));
    }
    static BRAINKIT_INLINE void transpose(const float* from, Index from_stride, float* to, Index to_stride) {
        __m512 a[16], b[16];
        BRAINKIT_UNROLL
        for (int i = 0; i < 16; ++i) a[i] = load(from + i * from_stride);
        BRAINKIT_UNROLL
        for (int i = 0; i < 16; i += 2) {
            b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
            b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
        }
        // After this, a[i + j] holds column j of rows i .. i + 3, of every fourth of the lanes.
        BRAINKIT_UNROLL
        for (int i = 0; i < 16; i += 4) {
            BRAINKIT_UNROLL
            for (int j = 0; j < 2; ++j) {
                a[i + 2 * j] = _mm512_shuffle_ps(b[i + j], b[i + j + 2], 0x44);
                a[i + 2 * j + 1] = _mm512_shuffle_ps(b[i + j], b[i + j + 2], 0xee);
            }
        }
        BRAINKIT_UNROLL
        for (int j = 0; j < 4; ++j) {
            const __m512 upper_even = _mm512_shuffle_f32x4(a[j], a[j + 4], 0x88);
            const __m512 upper_odd = _mm512_shuffle_f32x4(a[j], a[j + 4], 0xdd);
            const __m512 lower_even = _mm512_shuffle_f32x4(a[j + 8], a[j + 12], 0x88);
            const __m512 lower_odd = _mm512_shuffle_f32x4(a[j + 8], a[j + 12], 0xdd);
            store(to + j * to_stride, _mm512_shuffle_f32x4(upper_even, lower_even, 0x88));
            store(to + (j + 4) * to_stride, _mm512_shuffle_f32x4(upper_odd, lower_odd, 0x88));
            store(to + (j + 8) * to_stride, _mm512_shuffle_f32x4(upper_even, lower_even, 0xdd));
            store(to + (j + 12) * to_stride, _mm512_shuffle_f32x4(upper_odd, lower_odd, 0xdd));
        }
    }
};

template <>
struct Avx512<double> {
    using Number = double;
    using Vector = __m512d;
    static constexpr int kLanes = 8;

    static BRAINKIT_INLINE Vector zero() { return _mm512_setzero_pd(); }
    static BRAINKIT_INLINE Vector fill(double value) { return _mm512_set1_pd(value); }
    static BRAINKIT_INLINE Vector load(const double* from) { return _mm512_loadu_pd(from); }
    static BRAINKIT_INLINE void store(double* to, Vector value) { _mm512_storeu_pd(to, value); }
    static BRAINKIT_INLINE Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
    static BRAINKIT_INLINE Vector multiply(Vector a, Vector b) { return _mm512_mul_pd(a, b); }
    static BRAINKIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
    static BRAINKIT_INLINE void stream(double* to, Vector value) { _mm512_stream_pd(to, value); }
    static BRAINKIT_INLINE void end_stream() { _mm_sfence(); }
    static BRAINKIT_INLINE __m256d half(Vector a) {
        return _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    }
    static BRAINKIT_INLINE void add_sum4(Vector a, Vector b, Vector c, Vector d, double* out) {
        Avx2<double>::add_sum4(half(a), half(b), half(c), half(d), out);
    }
    static BRAINKIT_INLINE void transpose(const double* from, Index from_stride, double* to, Index to_stride) {
        transpose_plainly<double, kLanes>(from, from_stride, to, to_stride);
    }
};

}  // namespace

template <typename T>
const Kernels<T>* avx512_kernels() {
    static const Kernels<T> table = Table<Avx512<T>, 24, 4>::make("avx512");
    return &table;
}

}  // namespace brainkit
#else
namespace brainkit {

template <typename T>
const Kernels<T>* avx512_kernels() {
    return nullptr;
}

}  // namespace brainkit
#endif

namespace brainkit {

template const Kernels<float>* avx512_kernels();
template const Kernels<double>* avx512_kernels();

}  // namespace brainkit
