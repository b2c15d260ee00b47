"""Flags and exit codes of the scripts: 0 done, others as draem_jax.errors says, with one line."""

import itertools
import os
import re
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from commands import config_checks
from configs import default
from draem_jax.errors import Preempted, UserError

# Before TensorFlow is imported: no start-up messages beside ours. It announces oneDNN whatever the log level, and the
# pipeline is as fast without.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
# TensorFlow then leaves Keras alone until somebody asks for it: it would import scikit-learn and SciPy's statistics.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')


def define_config_file():
    """--config=FILE[:ARG] and --config.section.field=VALUE: an experiment, for scripts that start a run."""
    config_flags.DEFINE_config_file('config', None, 'Experiment file, with its argument after a colon.')
    # --help shows what the script's own file defines.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS['config'])


def config_file():
    """What --config was given: the file, with its argument after a colon; after `define_config_file`."""
    return config_flags.get_config_filename(flags.FLAGS['config'])


def define_config_overrides():
    """--config.section.field=VALUE alone: changes to the config of an existing run, read with `changes`."""
    config_flags.DEFINE_config_dict('config', default.get_config(), 'Changes to the config of the run.')


def define_hosts():
    """The flags of a run in several processes; read them with `hosts`."""
    flags.DEFINE_bool(
        'distributed',
        False,
        'Run as one of several processes, of which the environment knows: SLURM, Open MPI, Kubernetes or Cloud TPU.',
    )
    flags.DEFINE_string('coordinator', None, 'Elsewhere: host:port on which process 0 listens.')
    flags.DEFINE_integer('process_count', None, 'Elsewhere: how many processes there are.', lower_bound=1)
    flags.DEFINE_integer('process_index', None, 'Elsewhere: which of them this is, from 0.', lower_bound=0)
    flags.DEFINE_integer(
        'heartbeat_timeout', 100, 'Seconds after which a silent process counts as dead, and all end.', lower_bound=1
    )


def hosts():
    """The arguments of `draem_jax.devices.connect`, or None for a single process; after `define_hosts`."""
    values = flags.FLAGS
    named = {name: values[name].value for name in ('coordinator', 'process_count', 'process_index')}
    if not values.distributed and all(value is None for value in named.values()):
        return None
    return {**named, 'heartbeat_timeout_seconds': values.heartbeat_timeout}


def changes():
    """What the command line changes, as {'section.field': value}; after either of the two above."""
    return config_flags.get_override_values(flags.FLAGS['config'])


def main(script, *, takes_arguments=False, leave=sys.exit):
    """Parses the flags, calls `script` and ends the process with the exit code it returns (None is 0).

    Args:
        script: function without arguments; with `takes_arguments`, of a list of strings.
        takes_arguments: whether the command line may hold what is no flag, such as the names of files, before, between
            and after the flags. What follows `--` is no flag whatever it starts with.
        leave: what ends the process after an error, given its exit code.
    """
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file at INFO

    def guarded(arguments):
        if len(arguments) > 1 and not takes_arguments:
            _fail(f"Unexpected argument '{arguments[1]}'. Flags are written --name=value.")
        try:
            return script(arguments[1:]) if takes_arguments else script()
        except UserError as error:
            return _fail(str(error), error.exit_code, leave)
        except Preempted as reason:
            print(reason)
            return reason.exit_code

    app.run(guarded, flags_parser=_parse)


def _parse(arguments):
    try:
        for argument in itertools.takewhile(lambda argument: argument != '--', arguments[1:]):
            if override := re.match(r'--?(?:no)?config\.([^=]*)', argument):
                config_checks.check_name(override[1])
        rest = flags.FLAGS(arguments)
        if 'config' in flags.FLAGS:
            hasattr(flags.FLAGS.config, 'dataset')  # A file that is not there is only reported at the first look.
        return rest
    except SystemExit:
        sys.exit(0)  # After --help, where absl takes 1.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
        # ml_collections reports a wrong field, type or file with whichever of these is at hand.
        return _fail(_one_line(error))


def _one_line(error):
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _fail(line, exit_code=1, leave=sys.exit):
    print(f'Error: {line}', file=sys.stderr)
    leave(exit_code)
