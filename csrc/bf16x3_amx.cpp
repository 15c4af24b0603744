// Tiles in hardware. A thin layer, because few machines have it.
#include "bf16x3.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>

#include "bf16x3_impl.h"

namespace brainkit {
namespace {

// All eight registers are of 16 rows of 64 bytes.
struct alignas(64) Configuration {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(Configuration) == 64, "the processor reads 64 bytes");

// The intrinsics take the number of a register as a literal only.
struct AmxTiles {
    static void begin() {
        static const Configuration configuration;
        _tile_loadconfig(&configuration);
    }
    static void end() { _tile_release(); }

    template <int N>
    static void zero() {
        static_assert(N >= 0 && N < 4, "sums are in the registers 0 to 3");
        if constexpr (N == 0) _tile_zero(0);
        if constexpr (N == 1) _tile_zero(1);
        if constexpr (N == 2) _tile_zero(2);
        if constexpr (N == 3) _tile_zero(3);
    }

    template <int N>
    static void load(const void* from, Index stride) {
        static_assert(N >= 0 && N < 8, "there are eight registers");
        if constexpr (N == 0) _tile_loadd(0, from, stride);
        if constexpr (N == 1) _tile_loadd(1, from, stride);
        if constexpr (N == 2) _tile_loadd(2, from, stride);
        if constexpr (N == 3) _tile_loadd(3, from, stride);
        if constexpr (N == 4) _tile_loadd(4, from, stride);
        if constexpr (N == 5) _tile_loadd(5, from, stride);
        if constexpr (N == 6) _tile_loadd(6, from, stride);
        if constexpr (N == 7) _tile_loadd(7, from, stride);
    }

    template <int N>
    static void store(void* to, Index stride) {
        static_assert(N >= 0 && N < 4, "sums are in the registers 0 to 3");
        if constexpr (N == 0) _tile_stored(0, to, stride);
        if constexpr (N == 1) _tile_stored(1, to, stride);
        if constexpr (N == 2) _tile_stored(2, to, stride);
        if constexpr (N == 3) _tile_stored(3, to, stride);
    }

    template <int C, int A, int B>
    static void multiply() {
        static_assert(A == 4 + C / 2 && B == 6 + C % 2, "no such product is used");
        if constexpr (C == 0) _tile_dpbf16ps(0, 4, 6);
        if constexpr (C == 1) _tile_dpbf16ps(1, 4, 7);
        if constexpr (C == 2) _tile_dpbf16ps(2, 5, 6);
        if constexpr (C == 3) _tile_dpbf16ps(3, 5, 7);
    }
};

}  // namespace

const Bf16x3Kernels* amx_kernels() {
    static const Bf16x3Kernels table = make_bf16x3_kernels<AmxTiles>("amx");
    return &table;
}

}  // namespace brainkit
#else

namespace brainkit {

const Bf16x3Kernels* amx_kernels() { return nullptr; }

}  // namespace brainkit
#endif
