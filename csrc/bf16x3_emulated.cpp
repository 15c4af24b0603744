// Tiles in plain C++, with the arithmetic of AMX.
#include <cfloat>
#include <cmath>

#include "bf16x3_impl.h"

namespace brainkit {
namespace {

struct alignas(64) Register {
    unsigned char row[16][64];
};

// As in hardware, every thread has its own.
thread_local Register registers[8];

// Denormal numbers count as zeros, before and after every operation.
float flush(float x) { return std::fabs(x) < FLT_MIN ? std::copysign(0.0f, x) : x; }

float read_bf16(const Register& from, int row, int place) {
    Bf16 bits;
    std::memcpy(&bits, from.row[row] + sizeof bits * place, sizeof bits);
    return flush(number_of(static_cast<std::uint32_t>(bits) << 16));
}

struct EmulatedTiles {
    static void begin() {}
    static void end() {}

    template <int N>
    static void zero() {
        std::memset(&registers[N], 0, sizeof(Register));
    }

    template <int N>
    static void load(const void* from, Index stride) {
        for (int i = 0; i < 16; ++i) {
            std::memcpy(registers[N].row[i], static_cast<const unsigned char*>(from) + i * stride, 64);
        }
    }

    template <int N>
    static void store(void* to, Index stride) {
        for (int i = 0; i < 16; ++i) {
            std::memcpy(static_cast<unsigned char*>(to) + i * stride, registers[N].row[i], 64);
        }
    }

    // TDPBF16PS: products at even and at odd positions are summed separately (products exact, sums rounded), then the
    // two sums are added, then the accumulator.
    template <int C, int A, int B>
    static void multiply() {
        float second[16][32];
        for (int k = 0; k < 16; ++k) {
            for (int j = 0; j < 32; ++j) second[k][j] = read_bf16(registers[B], k, j);
        }
        for (int i = 0; i < 16; ++i) {
            float sums[32] = {};
            for (int k = 0; k < 16; ++k) {
                const float even = read_bf16(registers[A], i, 2 * k);
                const float odd = read_bf16(registers[A], i, 2 * k + 1);
                for (int j = 0; j < 32; j += 2) {
                    sums[j] = flush(std::fma(even, second[k][j], sums[j]));
                    sums[j + 1] = flush(std::fma(odd, second[k][j + 1], sums[j + 1]));
                }
            }
            float out[16];
            std::memcpy(out, registers[C].row[i], sizeof out);
            for (int j = 0; j < 16; ++j) out[j] = flush(flush(out[j]) + flush(sums[2 * j] + sums[2 * j + 1]));
            std::memcpy(registers[C].row[i], out, sizeof out);
        }
    }
};

}  // namespace

const Bf16x3Kernels& emulated_kernels() {
    static const Bf16x3Kernels table = make_bf16x3_kernels<EmulatedTiles>("emulated");
    return table;
}

}  // namespace brainkit
