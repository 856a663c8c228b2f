#pragma once

/// Registers a model, a data set and an optimizer. A call in `main` does as well as a static object.
void register_level();
