/* The Rust libraries behind C headers: zenoh (bus.h), tokenizers (tokenizer.h), minijinja (template.h), ring (digest.h). */
#pragma once

#include "bridge/bus.h"
#include "bridge/common.h"
#include "bridge/digest.h"
#include "bridge/template.h"
#include "bridge/tokenizer.h"
