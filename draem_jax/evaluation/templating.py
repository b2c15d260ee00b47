"""The files in the folder `templates`: templates that Jinja renders, style sheets and the report's script."""

import importlib.resources

import jinja2


def environment() -> jinja2.Environment:
    """Jinja's environment for the templates: it escapes every value for HTML and refuses a name that is not given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader('draem_jax.evaluation', 'templates'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['percent'] = lambda value: '-' if value is None else f'{100 * value:.1f}'
    return environment


def asset(name: str) -> str:
    """The text of a file that is taken as it is, such as a style sheet."""
    return importlib.resources.files('draem_jax.evaluation').joinpath('templates', name).read_text(encoding='utf-8')
