// Every bound that shoal puts on what comes from outside, in one place. A limit is a named constant with its unit;
// whoever enforces it names it in the error.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shoal::limits {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;
inline constexpr uint64_t kGiB = 1024 * kMiB;

// Model files.
inline constexpr uint64_t kMaxHeaderBytes = 256 * kMiB;       // a GGUF or safetensors header
inline constexpr uint64_t kMaxTensors = 400'000;
inline constexpr uint64_t kMaxMetadataPairs = 100'000;
inline constexpr uint64_t kMaxMetadataKeyBytes = 64 * kKiB;
inline constexpr uint64_t kMaxMetadataElements = 8'000'000;    // in all arrays of a GGUF header together; a text counts as two
inline constexpr uint64_t kMaxTensorNameBytes = 1 * kKiB;
inline constexpr uint64_t kMaxTensorDimensions = 4;           // of a GGUF tensor
inline constexpr uint64_t kMaxSafetensorsDimensions = 8;
inline constexpr uint64_t kMaxSafetensorsHeaderBytes = 100 * kMiB;
inline constexpr uint64_t kMaxSafetensorsHeaderDepth = 4;
inline constexpr uint64_t kMaxShardIndexBytes = 32 * kMiB;    // model.safetensors.index.json
inline constexpr uint64_t kMaxModelConfigBytes = 2 * kMiB;    // config.json; its JSON tree may be 26 times as large
inline constexpr uint64_t kMaxConfigBytes = 16 * kMiB;        // tokenizer_config.json and its like
inline constexpr uint64_t kMaxTokenizerBytes = 256 * kMiB;    // tokenizer.json
inline constexpr uint64_t kMaxJsonDepth = 64;
inline constexpr uint64_t kMaxShardFiles = 4096;

// Model shapes.
inline constexpr uint64_t kMaxLayers = 1024;
inline constexpr uint64_t kMaxHeads = 4096;
inline constexpr uint64_t kMaxHeadDim = 8192;
inline constexpr uint64_t kMaxExperts = 4096;                 // of a layer
inline constexpr uint64_t kMaxWidth = 1 << 20;                // hidden, head and feed-forward sizes
inline constexpr uint64_t kMaxVocabulary = 4'000'000;
inline constexpr uint64_t kMaxContextTokens = 16 << 20;

// Chat templates.
inline constexpr uint64_t kMaxTemplateBytes = 1 * kMiB;
inline constexpr uint64_t kTemplateFuel = 20'000'000;         // minijinja instructions a rendering may use
inline constexpr uint64_t kMaxRenderedBytes = 16 * kMiB;

// Requests and the HTTP server.
inline constexpr uint64_t kMaxBodyBytes = 16 * kMiB;
inline constexpr uint64_t kMaxHttpHeaderBytes = 32 * kKiB;
inline constexpr uint32_t kHttpHeaderTimeoutMs = 10'000;
inline constexpr uint32_t kHttpIdleTimeoutMs = 60'000;
inline constexpr size_t kMaxConnections = 4096;
inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopStringBytes = 1024;
inline constexpr size_t kMaxMessages = 10'000;
inline constexpr size_t kMaxChoices = 16;                     // n of one request
inline constexpr size_t kMaxQueuedRequests = 256;             // waiting at one instance; more is 429
inline constexpr uint32_t kMaxTopLogprobs = 128;               // alternatives reported per token
inline constexpr size_t kMaxLogitBias = 4096;                 // tokens with a bias in one request
inline constexpr size_t kMaxActiveSequences = 64;             // decoding at once in one instance

// Frames and messages between processes.
inline constexpr uint64_t kMaxFrameBytes = 256 * kMiB;        // one Link frame
inline constexpr uint64_t kMaxControlMessageBytes = 64 * kMiB;  // node <-> worker, node <-> node
inline constexpr uint64_t kMaxStepRows = 8192;
inline constexpr uint64_t kMaxNodes = 256;
inline constexpr uint32_t kMaxThreads = 512;                  // that compute in one process

// Failure detection.
inline constexpr uint32_t kLeaseMs = 2'000;                   // silence after which a node or Link counts as lost
inline constexpr uint32_t kHeartbeatMs = 500;

}  // namespace shoal::limits
