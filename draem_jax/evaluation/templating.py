"""The templates and style sheets beside this file, and how they become text."""

import importlib.resources

import jinja2


def environment():
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('draem_jax.evaluation', 'templates'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['percent'] = lambda value: '-' if value is None else f'{100 * value:.1f}'
    return environment


def asset(name):
    return importlib.resources.files('draem_jax.evaluation').joinpath('templates', name).read_text(encoding='utf-8')
