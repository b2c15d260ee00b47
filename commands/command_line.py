"""Flags and exit codes of the scripts. 0 is done; draem_jax.errors holds the others, each of which prints one line."""

import errno
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from commands import config_checks
from configs import default
from draem_jax import storage, terminal
from draem_jax.errors import Preempted, UserError

# TensorFlow reads these when it is imported, and then prints nothing among our own lines. It announces oneDNN at every
# log level, so oneDNN is off; the pipeline is as fast without it.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
# With this set, TensorFlow imports Keras only when Keras is used. Keras imports scikit-learn and SciPy's statistics.
os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')


# What the system says where files are not as they should be, or cannot be reached: it is for the user to mend.
_OF_FILES = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTDIR),
    *(errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE),
)

# ml_collections reports a wrong field, type or file with any of these.
_OF_CONFIGS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError)


def define_config_file(*, takes_several: bool = False) -> None:
    """Defines --config=FILE[:ARG] and --config.section.field=VALUE, for scripts that start a run.

    Args:
        takes_several: whether --config may name several files, with commas between. `config_files` lists them, and the
            flag's own config is that of the first.
    """
    config_flags.DEFINE_config_file('config', None, 'Experiment file, with its argument after a colon.')
    if takes_several:
        flags.FLAGS['config'].parser = _FirstFile('config')
        flags.FLAGS['config'].help = 'Experiment files, each with its argument after a colon, with commas between.'
    # --help shows what the script's own file defines.
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS['config'])


class _FirstFile(ConfigFileFlagParser):
    def parse(self, path: str) -> ConfigDict:
        return super().parse(split_files(path)[0])


def config_files() -> list[str]:
    """The files that --config names, each with its argument after a colon, and each once; empty without --config."""
    if flags.FLAGS.config is None:
        return []
    return split_files(config_flags.get_config_filename(flags.FLAGS['config']))


def split_files(value: str) -> list[str]:
    """The files in a value of --config. An argument may hold commas too, so only one before a file parts two."""
    parts = re.split(r',(?=[^,:]+\.py(?:[:,]|$))', value)
    return list(dict.fromkeys(part.strip() for part in parts))


def load_config(arguments: Sequence[str]) -> ConfigDict:
    """The config that train.py makes from --config=FILE[:ARG] and --config.section.field=VALUE, not checked.

    Raises:
        UserError: there is no such file, it does not take the argument, or a value has another type.
    """
    sys.modules.pop('config_config', None)  # There ml_collections would add this file to the one loaded before.
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=list(arguments))
        values(['', *arguments])
        hasattr(values.config, 'dataset')  # As in `_parse`.
        return values.config
    except _OF_CONFIGS as error:
        raise UserError(_one_line(error)) from error


def define_config_overrides() -> None:
    """Defines --config.section.field=VALUE alone: changes to the config of an existing run. `changes` reads them."""
    # The next line already looks for them among the arguments, whatever stands before.
    _fail_at_unknown_fields([argument for argument in sys.argv if argument != '--'])
    config_flags.DEFINE_config_dict('config', default.get_config(), 'Changes to the config of the run.')


def define_hosts() -> None:
    """Defines the flags of a run in several processes. `hosts` reads them."""
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


def hosts() -> dict[str, Any] | None:
    """The arguments of `draem_jax.processes.connect`, or None for a single process; call `define_hosts` before."""
    values = flags.FLAGS
    named = {name: values[name].value for name in ('coordinator', 'process_count', 'process_index')}
    if not values.distributed and all(value is None for value in named.values()):
        return None
    return {**named, 'heartbeat_timeout_seconds': values.heartbeat_timeout}


def folder(flag: str) -> str:
    """The folder that a flag names, such as 'workdir', with the user's home folder in place of a leading '~'.

    Raises:
        UserError: it is empty, or not on this machine.
    """
    value = flags.FLAGS[flag].value
    if not value:
        raise UserError(f'--{flag} is empty: expected a folder.')
    return storage.local_path(value, f'--{flag}')


def changes() -> dict[str, Any]:
    """What the command line changes in the config, as {'section.field': value}; nothing where it names no config."""
    return {} if flags.FLAGS.config is None else config_flags.get_override_values(flags.FLAGS['config'])


def main(
    script: Callable[..., int | None], *, takes_arguments: bool = False, leave: Callable[[int], NoReturn] = sys.exit
) -> NoReturn:
    """Parses the flags, calls `script` and ends the process with the exit code it returns (None is 0).

    Args:
        script: takes no argument, or with `takes_arguments` a list of strings.
        takes_arguments: whether the command line may hold words that are no flags, such as names of files. They may
            stand before, between and after the flags. After `--` every word is one, even with dashes in front.
        leave: ends the process after an error of the script, given the exit code. One of several processes must not
            end as Python does, which waits for the others.
    """
    logging.set_verbosity(logging.WARNING)  # At INFO Orbax prints a line for every file.
    terminal.make_forgiving()

    def guarded(arguments: list[str]) -> int | None:
        if len(arguments) > 1 and not takes_arguments:
            _fail(f"Unexpected argument '{arguments[1]}'. Flags are written --name=value.")
        try:
            return script(arguments[1:]) if takes_arguments else script()
        except UserError as error:
            return _fail(str(error), error.exit_code, leave)
        except Preempted as reason:
            print(reason)
            return reason.exit_code
        except KeyboardInterrupt:  # Where nothing is under way that could be finished first.
            return _fail('Interrupted.', 130, leave)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _OF_FILES and error.filename is not None:
                return _fail(f"{error.strerror}: '{error.filename}'.", leave=leave)
            traceback.print_exc()  # A fault of ours: whoever reports it needs the traceback.
            leave(1)

    app.run(guarded, flags_parser=_parse)


def _fail_at_unknown_fields(arguments: list[str]) -> None:
    """Ends the process if an argument changes a field that the config does not have."""
    for argument in itertools.takewhile(lambda argument: argument != '--', arguments[1:]):
        if override := re.match(r'--?(?:no)?config\.([^=]*)', argument):
            try:
                config_checks.check_name(override[1])
            except UserError as error:
                _fail(str(error))


def _parse(arguments: list[str]) -> list[str]:
    _fail_at_unknown_fields(arguments)
    try:
        rest = flags.FLAGS(_last_of_each_tuple(arguments))
        if 'config' in flags.FLAGS:
            hasattr(flags.FLAGS.config, 'dataset')  # The first access reports a missing file: let it be here.
        return rest
    except SystemExit:
        sys.exit(0)  # absl leaves with 1 after --help.
    except _OF_CONFIGS as error:
        return _fail(_one_line(error))
    except (RecursionError, MemoryError):  # From Python's parser, which reads tuples.
        return _fail('A value on the command line is nested too deeply.')


def _last_of_each_tuple(arguments: list[str]) -> list[str]:
    """The command line with only the last of several values for the same tuple in the config.

    ml_collections would join them; of any other flag that is given twice the last one counts.
    """
    known = default.get_config()
    end = arguments.index('--') if '--' in arguments else len(arguments)
    kept: list[str] = []
    seen: set[str] = set()
    for argument in reversed(arguments[1:end]):
        match = re.match(r'--?config\.([^.=]+)\.([^.=]+)(=|$)', argument)
        if match is None or not isinstance(known.get(match[1], {}).get(match[2]), tuple):
            kept.append(argument)
            continue
        path = f'{match[1]}.{match[2]}'
        if path not in seen:
            kept.append(argument)
        elif not match[3] and kept and not kept[-1].startswith('--'):  # Its value, the next word, has been kept.
            kept.pop()
        seen.add(path)
    return [*arguments[:1], *reversed(kept), *arguments[end:]]


def _one_line(error: Exception) -> str:
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in str(text).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _fail(line: str, exit_code: int = 1, leave: Callable[[int], NoReturn] = sys.exit) -> NoReturn:
    print(f'Error: {terminal.printable(line)}', file=sys.stderr)  # A name of a file may hold a line break.
    leave(exit_code)
