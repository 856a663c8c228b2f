#include <cstdio>

#include "rubato/config/catalogue.h"
#include "rubato/core/error.h"

int main() {
  for (const rubato::Listed& schedule : rubato::catalogue("schedules")) std::printf("%s\n", schedule.name.c_str());
}
