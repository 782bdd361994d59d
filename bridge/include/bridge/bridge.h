/* The Rust libraries behind C headers: zenoh (bus.h). */
#pragma once

#include "bridge/bus.h"
#include "bridge/common.h"
