// The dense hypercolumn, one level a launch, for sm_80 and newer: what `gansegctl extract --dense` writes. See
// upsample_concat_triton.py for what it saves.
//
// A warp writes a strip of rows of 32·VEC columns of one channel. A lane owns VEC neighbouring columns, 16 bytes of
// output, and keeps the two native rows it stands between, interpolated across, in registers: at factor s a native row
// is read once for s output rows, and stores go out 16 bytes a lane, past the cache (st.global.cs).
// Plain C interface: pointers, sizes and a stream; nothing of torch is linked.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

namespace {

constexpr int kWarps = 4;   // a block
constexpr int kStrip = 32;  // rows a warp writes

__device__ inline float widen(float v) { return v; }
__device__ inline float widen(__half v) { return __half2float(v); }
__device__ inline float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
template <typename T> __device__ inline T narrow(float v);
template <> __device__ inline float narrow<float>(float v) { return v; }
template <> __device__ inline __half narrow<__half>(float v) { return __float2half_rn(v); }
template <> __device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float v) { return __float2bfloat16_rn(v); }

template <typename T> struct Lane {
    static constexpr int kVec = 16 / sizeof(T);
    union {
        T value[kVec];
        uint4 bits;
    };
    __device__ Lane() : bits() {}
};

struct Level {
    const void *x;
    long long stride_n, stride_c, stride_y, stride_x;  // elements
    const int *rows, *columns;                         // [2, H], [2, W]: native index of each tap
    const float *row_weights, *column_weights;
    void *out;                                         // channel 0 of this level, sample 0
    long long channels, out_stride_n;
    int height, width, kind;                           // kind 0: as it is, 1: one tap, 2: four taps
    bool vector_out, vector_in;                        // whether 16 bytes lie together
    long long tasks;                                   // warps with work
};

template <typename T>
__device__ inline void across(const Level &level, const T *line, const int *left, const int *right, const float *wl,
                              const float *wr, float *row) {
#pragma unroll
    for (int v = 0; v < Lane<T>::kVec; ++v) {
        row[v] = wl[v] * widen(line[left[v] * level.stride_x]);
        if (level.kind == 2) row[v] += wr[v] * widen(line[right[v] * level.stride_x]);
    }
}

template <typename T> __device__ inline void store(const Level &level, T *target, int x, const Lane<T> &lane) {
    if (level.vector_out) {
        if (x < level.width) __stcs(reinterpret_cast<uint4 *>(target + x), lane.bits);
        return;
    }
#pragma unroll
    for (int v = 0; v < Lane<T>::kVec; ++v)
        if (x + v < level.width) target[x + v] = lane.value[v];
}

template <typename T> __global__ void __launch_bounds__(32 * kWarps) upsample_level(const Level level) {
    constexpr int kVec = Lane<T>::kVec;
    const int blocks = (level.width + 32 * kVec - 1) / (32 * kVec);
    const int strips = (level.height + kStrip - 1) / kStrip;
    long long task = (long long)blockIdx.x * kWarps + threadIdx.y;
    if (task >= level.tasks) return;
    const int x = ((int)(task % blocks) * 32 + (int)threadIdx.x) * kVec;
    task /= blocks;
    const int begin = (int)(task % strips) * kStrip;
    task /= strips;
    const long long c = task % level.channels, n = task / level.channels;
    const long long plane = (long long)level.height * level.width;
    const int end = min(begin + kStrip, level.height);
    const T *source = (const T *)level.x + n * level.stride_n + c * level.stride_c;
    T *target = (T *)level.out + n * level.out_stride_n + c * plane;
    if (x >= level.width) return;

    if (level.kind == 0) {
        for (int y = begin; y < end; ++y) {
            const T *line = source + y * level.stride_y;
            Lane<T> lane;
            if (level.vector_in) {
                lane.bits = __ldcs(reinterpret_cast<const uint4 *>(line + x));
            } else {
#pragma unroll
                for (int v = 0; v < kVec; ++v) lane.value[v] = line[min(x + v, level.width - 1) * level.stride_x];
            }
            store(level, target + (long long)y * level.width, x, lane);
        }
        return;
    }

    int left[kVec], right[kVec];
    float wl[kVec], wr[kVec], top[kVec], bottom[kVec];
#pragma unroll
    for (int v = 0; v < kVec; ++v) {
        const int p = min(x + v, level.width - 1);
        left[v] = level.columns[p];
        right[v] = level.columns[level.width + p];
        wl[v] = level.column_weights[p];
        wr[v] = level.column_weights[level.width + p];
        top[v] = bottom[v] = 0.0f;
    }
    int above = -1, below = -1;  // the native rows held in top and bottom
    for (int y = begin; y < end; ++y) {
        const int upper = level.rows[y], lower = level.rows[level.height + y];
        const float wt = level.row_weights[y], wb = level.row_weights[level.height + y];
        if (upper != above) {
            if (upper == below) {
#pragma unroll
                for (int v = 0; v < kVec; ++v) top[v] = bottom[v];
            } else {
                across<T>(level, source + upper * level.stride_y, left, right, wl, wr, top);
            }
            above = upper;
        }
        if (level.kind == 2 && lower != below) {
            across<T>(level, source + lower * level.stride_y, left, right, wl, wr, bottom);
            below = lower;
        }
        Lane<T> lane;
#pragma unroll
        for (int v = 0; v < kVec; ++v)
            lane.value[v] = narrow<T>(level.kind == 2 ? wt * top[v] + wb * bottom[v] : top[v]);
        store(level, target + (long long)y * level.width, x, lane);
    }
}

template <typename T> cudaError_t run(Level level, long long samples, cudaStream_t stream) {
    constexpr int kVec = Lane<T>::kVec;
    const long long blocks = (level.width + 32 * kVec - 1) / (32 * kVec);
    const long long strips = (level.height + kStrip - 1) / kStrip;
    const long long tasks = samples * level.channels * strips * blocks;
    if (tasks == 0) return cudaSuccess;
    const bool whole = level.width % kVec == 0;
    level.vector_out = whole && (uintptr_t)level.out % 16 == 0 && level.out_stride_n % kVec == 0;
    level.vector_in = whole && level.stride_x == 1 && (uintptr_t)level.x % 16 == 0 && level.stride_y % kVec == 0 &&
                      level.stride_c % kVec == 0 && level.stride_n % kVec == 0;
    level.tasks = tasks;
    const long long grid = (tasks + kWarps - 1) / kWarps;
    if (grid > 0x7fffffffLL) return cudaErrorInvalidConfiguration;
    upsample_level<T><<<(unsigned)grid, dim3(32, kWarps), 0, stream>>>(level);
    return cudaGetLastError();
}

}  // namespace

extern "C" {

// dtype 0: float32, 1: float16, 2: bfloat16. strides: n, c, y, x of the level, in elements. Returns a cudaError_t.
int gansegctl_upsample_level(int dtype, const void *x, const long long *strides, const int *rows,
                             const float *row_weights, const int *columns, const float *column_weights, void *out,
                             long long samples, long long channels, long long out_stride_n, int height, int width,
                             int kind, void *stream) {
    Level level = {x,   strides[0], strides[1], strides[2],   strides[3], rows,  columns, row_weights, column_weights,
                   out, channels,   out_stride_n, height, width,      kind,  false,   false,     0};
    cudaStream_t on = (cudaStream_t)stream;
    cudaError_t code = cudaErrorInvalidValue;
    if (dtype == 0) code = run<float>(level, samples, on);
    if (dtype == 1) code = run<__half>(level, samples, on);
    if (dtype == 2) code = run<__nv_bfloat16>(level, samples, on);
    return (int)code;
}

const char *gansegctl_error(int code) { return cudaGetErrorString((cudaError_t)code); }

}  // extern "C"
