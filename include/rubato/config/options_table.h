#pragma once

#include <limits>
#include <string>

#include "rubato/config/options.h"

namespace rubato {

/// What a visitor learns of one option besides its field.
struct OptionInfo {
  const char* name;   ///< flag without dashes; key in TOML
  const char* group;  ///< heading in --help
  const char* help;   ///< meaning and unit
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool identity = true;      ///< a resumed run must have the same value
  bool of_replicas = false;  ///< except where it goes on with another number of replicas
};

/// Calls `visit(info, field)` for every option of all runs; for those that entries bring see entries.h. `o` is a TrainOptions,
/// const or not.
template <class Options, class Visitor>
void visit_options(Options&& o, Visitor&& visit) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const char* group = "Data";
  visit(OptionInfo{"data", group, "data set, from `rubato list datasets`"}, o.data);
  visit(OptionInfo{"data-dir", group, "folder (text: folder or file) of the data; empty: the data set's usual place", -inf, inf,
                   false},
        o.data_dir);
  visit(OptionInfo{"sequence-length", group, "text: characters per sample", 1, 1e6}, o.sequence_length);
  visit(OptionInfo{"augment", group, "images: random horizontal flip and crop, the same for the same seed"}, o.augment);
  visit(OptionInfo{"no-shuffle", group, "take the samples in the order of the file"}, o.no_shuffle);
  visit(OptionInfo{"batch-size", group, "samples per batch", 1, 1 << 24}, o.batch_size);
  visit(OptionInfo{"prefetch", group, "batches prepared ahead by a thread of their own; 0: none", 0, 1e5, false}, o.prefetch);

  group = "Model";
  visit(OptionInfo{"model", group, "name from `rubato list models`"}, o.model);
  visit(OptionInfo{"width", group, "base width of the model; 0: its own", 0, 1 << 16}, o.width);
  visit(OptionInfo{"dropout", group, "dropout probability, where the model has dropout", 0, 1}, o.dropout);
  visit(OptionInfo{"init-from", group, "weights to start from: a run, a checkpoint, or a .pt file written by Python", -inf, inf,
                   false},
        o.init_from);

  group = "Schedule";
  visit(OptionInfo{"schedule", group, "how batches become gradients; see `rubato list schedules`"}, o.schedule);
  visit(OptionInfo{"stages", group,
                   "staged schedules (ddg, features-replay, fdg, dni, gpipe, 1f1b): number of stages K; 0: one for each process "
                   "of a job without coupling, else 2",
                   0, 4096},
        o.stages);
  visit(OptionInfo{"cuts", group, "first block of each further stage, for example 2,4; auto: balanced by a profile"}, o.cuts);
  visit(OptionInfo{"publish", group, "when backward updates weights: block (each as it is ready) or model (all at the end)"},
        o.publish);
  visit(OptionInfo{"stale-weights", group,
                   "weights of a delayed backward: stashed, live or replayed; auto: replayed with features-replay, else stashed"},
        o.stale_weights);
  visit(OptionInfo{"staleness-scaling", group, "none, or inverse: gradients times 1 / (1 + staleness)"}, o.staleness_scaling);

  group = "Replicas";
  visit(OptionInfo{"coupling", group, "how replicas stay together; see `rubato list couplings`"}, o.coupling);
  visit(OptionInfo{"replicas", group, "number of replicas; 0: 1 without coupling, else 2", 0, 1 << 20, true, true}, o.replicas);
  visit(OptionInfo{"period", group, "steps of a replica between two exchanges; default by coupling", 1}, o.period);
  visit(OptionInfo{"sampling", group,
                   "whole: each replica samples all of the data; shard: they share each epoch; auto: by coupling"},
        o.sampling);

  group = "Optimizer";
  visit(OptionInfo{"optimizer", group, "name from `rubato list optimizers`"}, o.optimizer);
  visit(OptionInfo{"lr", group, "learning rate; default by optimizer: sgd 0.1, adagrad 0.01, others 0.001", 0}, o.lr);
  visit(OptionInfo{"momentum", group, "sgd (default 0.9; 0 with easgd, downpour and their like), rmsprop (default 0)", 0, 1},
        o.momentum);
  visit(OptionInfo{"nesterov", group, "sgd: Nesterov momentum"}, o.nesterov);
  visit(
      OptionInfo{
          "momentum-form", group,
          "sgd, where the rate changes: torch (the new rate scales old momentum) or velocity (it does not); auto: velocity "
          "with eamsgd and mdownpour, whose paper has it so, else torch"},
      o.momentum_form);
  visit(OptionInfo{"weight-decay", group, "default: sgd 5e-4, adamw 0.01, others 0", 0}, o.weight_decay);
  visit(OptionInfo{"lr-schedule", group, "constant, step or cosine"}, o.lr_schedule);
  visit(OptionInfo{"warmup-epochs", group, "epochs of linear warm-up of the learning rate", 0}, o.warmup_epochs);
  visit(OptionInfo{"lr-step-epochs", group, "step: epochs between two cuts", 0}, o.lr_step_epochs);
  visit(OptionInfo{"lr-step-factor", group, "step: factor of each cut", 0, 1}, o.lr_step_factor);
  visit(OptionInfo{"clip-norm", group, "largest L2 norm of a block's gradient; 0: no clipping", 0}, o.clip_norm);
  visit(OptionInfo{"clip-value", group, "largest absolute value in a gradient; 0: no clipping", 0}, o.clip_value);

  group = "Run";
  visit(OptionInfo{"epochs", group, "passes over the training data, all replicas together", 0, 1e9, false}, o.epochs);
  visit(OptionInfo{"steps", group, "batches of each replica, instead of --epochs; 0: only write the initial weights", 0, 1e12,
                   false},
        o.steps);
  visit(
      OptionInfo{
          "evaluate-every", group,
          "batches of each replica between tests, besides one after every epoch; -1: test only at the end, nobody waits for a "
          "test before",
          -1, inf, false},
      o.evaluate_every);
  visit(OptionInfo{"target-loss", group, "note when the mean training loss of 50 batches first falls to it; the run goes on", 0,
                   inf, false},
        o.target_loss);
  visit(OptionInfo{"target-accuracy", group, "stop once the test accuracy in percent is reached", 0, 100, false},
        o.target_accuracy);
  visit(OptionInfo{"seed", group, "of weights, order, augmentation, dropout", 0}, o.seed);
  visit(OptionInfo{"precision", group, "fp32, or bf16 (autocast in forward; weights stay fp32)"}, o.precision);
  visit(OptionInfo{"memory-format", group, "of image activations: contiguous or channels-last"}, o.memory_format);
  visit(OptionInfo{"device", group, "cpu, cuda, cuda:N"}, o.device);
  visit(OptionInfo{"threads-per-role", group, "intra-op threads of each role", 1, 1024, false}, o.threads_per_role);
  visit(OptionInfo{"inject-delay", group, "ROLE:MS or ROLE:LOW-HIGH, wait before each computation of a role; repeatable", -inf,
                   inf, false},
        o.inject_delay);
  visit(OptionInfo{"run-dir", group, "the run folder; empty: a new one under runs/", -inf, inf, false}, o.run_dir);
  visit(OptionInfo{"resume", group, "continue the run in this folder from its newest complete checkpoint", -inf, inf, false},
        o.resume);
  visit(OptionInfo{"checkpoint-every", group, "batches between checkpoints, besides one after every epoch; -1: only at the end",
                   -1, inf, false},
        o.checkpoint_every);
  visit(OptionInfo{"probe-bias", group,
                   "every so many batches of the first replica compare its stale gradient with a fresh one; 0: never", 0, inf,
                   false},
        o.probe_bias);
  visit(OptionInfo{"trace", group, "write trace.json (Chrome trace, opens in Perfetto) and transcript.txt", -inf, inf, false},
        o.trace);
  visit(OptionInfo{"record", group, "write recording.rec, the order of every read, publication and message, for `rubato replay`",
                   -inf, inf, false},
        o.record);
  visit(OptionInfo{"quiet", group, "print errors only", -inf, inf, false}, o.quiet);
  visit(OptionInfo{"json", group, "print the summary as JSON on standard output", -inf, inf, false}, o.json);

  group = "Processes (rubato launch, torchrun, Slurm, Open MPI)";
  visit(OptionInfo{"when-worker-dies", group,
                   "synchronous couplings and stages in processes: continue without it, wait for another (from the last "
                   "checkpoint), stop; auto: continue where whole replicas are tied, else wait",
                   -inf, inf, false},
        o.when_worker_dies);
  visit(OptionInfo{"silence", group, "seconds without a sign of life after which a process counts as gone", 0.5, 3600, false},
        o.silence);
  visit(OptionInfo{"patience", group, "seconds to wait for a process that should come, or come back", 1, 1e6, false}, o.patience);
  visit(OptionInfo{"link-latency-ms", group, "artificial: every message between processes leaves so much later", 0, 1e4, false},
        o.link_latency_ms);
  visit(OptionInfo{"metrics", group, "serve a page for Prometheus at ADDRESS:PORT, /metrics; empty: none", -inf, inf, false},
        o.metrics);
}

}  // namespace rubato
