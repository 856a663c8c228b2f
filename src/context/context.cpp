#include "rubato/context/context.h"

#include "rubato/context/runtime.h"

// The folder is an interface; this file makes its headers compile on their own.
