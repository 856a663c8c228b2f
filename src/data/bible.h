#pragma once

#include "data/files.h"

namespace rubato {

/// True for the compressed text that Debian's package bible-kjv-text installs as bible.data.
bool is_compressed_text(const FileBytes& file);

/// The plain text in it. DataError if the file is damaged.
///
/// Format, all numbers big-endian: at byte 84 the size of a window, at 88 the number n of windows, at 92 n + 1 offsets
/// into the file (the last is its end). The windows form one compress(1) stream (LZW of 9 to 16 bits, least significant
/// bit first) with a clear code at the end of each, so that each can be read alone. Every window but the last expands
/// to exactly the window size.
FileBytes expand_compressed_text(const FileBytes& file);

}  // namespace rubato
