#include <cstdio>

#include "rubato/core/error.h"
#include "rubato/train/catalogue.h"

int main() {
  for (const rubato::Listed& schedule : rubato::catalogue("schedules")) std::printf("%s\n", schedule.name.c_str());
}
