"""The arguments of a call that publishes, and those of the `enqueue` that takes its place."""

from __future__ import annotations

import keyword
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import libcst as cst
import libcst.matchers as m

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The parameters of `Task.apply_async` and of `send_task`, as far as they can be given by position.
_APPLY_ASYNC = ("args", "kwargs", "task_id", "producer", "link", "link_error", "shadow")
_SEND_TASK = ("name", "args", "kwargs", "countdown", "eta", "task_id")
#: Options that are good for the moment of the call alone.
_OF_THE_MOMENT = ("connection", "producer", "publisher", "router", "result_cls", "add_to_parent")
_OF_ENQUEUE = ("_name", "_origin", "_dispatch_options")


class UnsafeError(Exception):
    """A call is left as it is, for this reason. It may name another line of the file, as `{line}`."""

    def __init__(self, reason: str, line: int = 0) -> None:
        super().__init__(reason)
        self._line = line

    def reason(self, lines: Mapping[int, int]) -> str:
        """The reason, with the number that the line has now."""
        return str(self).replace("{line}", str(lines.get(self._line, self._line))) if self._line else str(self)


@dataclass(frozen=True, slots=True)
class Publishing:
    """A call that publishes a task, without what is around it."""

    receiver: cst.BaseExpression
    method: str
    args: Sequence[cst.Arg]
    #: The call itself, if its layout can be kept.
    layout: cst.Call | None

    @classmethod
    def of(cls, node: cst.Call, *, on_commit: bool) -> Self:
        """Find it in a call, or in the `on_commit` that is given.

        Raises:
            UnsafeError: if the `on_commit` has arguments that it should not have.
        """
        if not on_commit:
            return cls._of_call(node, node)
        for argument in node.args[1:]:
            if argument.star or (argument.keyword and argument.keyword.value not in ("using", "robust")):
                raise UnsafeError("the `on_commit()` has arguments that are not known")
        callback = node.args[0].value
        match callback:
            case cst.Lambda(body=cst.Call() as inner):
                return cls._of_call(inner, None)
            case cst.Call(args=[first, *args]):
                return cls._of_call(cst.Call(first.value, args), None)
            case _:
                return cls._of_call(cst.Call(callback), None)

    @classmethod
    def of_called_canvas(cls, node: cst.Call) -> Self:
        """Find it in `group(...)()` or `chord(header)(callback)`.

        Raises:
            UnsafeError: if the canvas is not in the code, or called with something else.
        """
        match node:
            case cst.Call(func=(cst.Call() | cst.BinaryOperation()) as canvas, args=[]):
                return cls(canvas, "delay", [], None)
            case cst.Call(
                func=cst.Call(func=cst.Name("chord") | cst.Attribute(attr=cst.Name("chord")), args=[header]) as canvas,
                args=[cst.Arg(keyword=None, star="") as callback],
            ) if not header.star and not header.keyword:
                if (
                    isinstance(header.value, cst.GeneratorExp) and not header.value.lpar
                ):  # it may only be bare if it is alone
                    parens = {"lpar": [cst.LeftParen()], "rpar": [cst.RightParen()]}
                    header = header.with_changes(value=header.value.with_changes(**parens))
                return cls(canvas.with_changes(args=_in_line([header, callback])), "delay", [], None)
            case _:
                raise UnsafeError("it is called with arguments; write it by hand, as `airlock.enqueue(canvas, ...)`")

    @classmethod
    def _of_call(cls, call: cst.Call, layout: cst.Call | None) -> Self:
        function = call.func
        if not isinstance(function, cst.Attribute):
            raise UnsafeError("it is called in a way that is not known")
        return cls(function.value, function.attr.value, call.args, layout)


def enqueue_call(function: cst.BaseExpression, publishing: Publishing, module: cst.Module) -> cst.Call:
    """The call of `enqueue` that takes the place of another.

    Raises:
        UnsafeError: if some of its arguments cannot be taken over.
    """
    plain = publishing.method in ("delay", "delay_on_commit")
    if plain and publishing.layout is not None:
        return _with_receiver(function, publishing, publishing.layout)
    if plain:
        args = [_bare(_in_parentheses(_checked(argument))) for argument in publishing.args]
        options: dict[str, cst.BaseExpression] = {}
        receiver = publishing.receiver
    else:
        named = _by_name(publishing)
        receiver = named.pop("name") if publishing.method == "send_task" and "name" in named else publishing.receiver
        args = [*_positional(named.pop("args", None)), *_keywords(named.pop("kwargs", None))]
        options = named
        for name in options:
            if name in _OF_THE_MOMENT:
                raise UnsafeError(f"the option `{name}` belongs to this moment")
    if options:
        args.append(
            cst.Arg(
                _options(options, module),
                keyword=cst.Name("_dispatch_options"),
                equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
                whitespace_after_arg=_comment_of(options, publishing),
            )
        )
    return _laid_out(function, [cst.Arg(_without_parentheses(receiver)), *args], publishing, module)


def _with_receiver(function: cst.BaseExpression, publishing: Publishing, layout: cst.Call) -> cst.Call:
    """The same call, with the receiver as its first argument."""
    args = [_in_parentheses(_checked(argument)) for argument in publishing.args]
    between = layout.whitespace_before_args
    comma: cst.Comma | cst.MaybeSentinel = cst.MaybeSentinel.DEFAULT
    if args:
        after = between if _is_broken(between) else cst.SimpleWhitespace(" ")
        if isinstance(after, cst.ParenthesizedWhitespace):  # its comment stays where it is, and is there once
            after = after.with_changes(first_line=cst.TrailingWhitespace(), empty_lines=[])
        comma = cst.Comma(whitespace_after=after)
    first = cst.Arg(_without_parentheses(publishing.receiver), comma=comma)
    return layout.with_changes(func=function, args=[first, *args])


def _checked(argument: cst.Arg) -> cst.Arg:
    if argument.keyword and argument.keyword.value in _OF_ENQUEUE:
        raise UnsafeError(f"the argument `{argument.keyword.value}` means something else to `enqueue()`")
    return argument


def _in_parentheses(argument: cst.Arg) -> cst.Arg:
    """`delay(x for x in y)` needs none, as its only argument."""
    if isinstance(argument.value, cst.GeneratorExp) and not argument.value.lpar:
        return argument.with_changes(value=argument.value.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()]))
    return argument


def _by_name(publishing: Publishing) -> dict[str, cst.BaseExpression]:
    """All arguments of an `apply_async` or `send_task`, by parameter."""
    parameters = _SEND_TASK if publishing.method == "send_task" else _APPLY_ASYNC
    named: dict[str, cst.BaseExpression] = {}
    for position, argument in enumerate(publishing.args):
        if argument.star:
            raise UnsafeError("its options are dynamic")
        if argument.keyword is None and position >= len(parameters):
            raise UnsafeError("it has too many positional arguments")
        name = argument.keyword.value if argument.keyword else parameters[position]
        named[name] = argument.value
    if publishing.method == "send_task" and "name" not in named:
        raise UnsafeError("the name of the task is missing")
    return named


def _positional(value: cst.BaseExpression | None) -> list[cst.Arg]:
    match value:
        case None | cst.Name(value="None"):
            return []
        case cst.Tuple(elements=elements) | cst.List(elements=elements):
            return [
                cst.Arg(each.value, star="*" if isinstance(each, cst.StarredElement) else "", comma=each.comma)
                for each in elements
            ]
        case _:
            raise UnsafeError("its `args` are no literal tuple or list")


def _keywords(value: cst.BaseExpression | None) -> list[cst.Arg]:
    match value:
        case None | cst.Name(value="None"):
            return []
        case cst.Dict(elements=elements):
            keywords = [_keyword(each) for each in elements]
            if len(keywords) > 1 and any(each.star for each in keywords):  # one may override the other
                return [cst.Arg(value, star="**")]
            return keywords
        case cst.Call(func=cst.Name(value="dict"), args=args) if all(
            each.keyword or each.star == "**" for each in args
        ):
            return [_bare(_checked(each)).with_changes(comma=each.comma) for each in args]
        case _:
            raise UnsafeError("its `kwargs` are no literal dict")


def _keyword(element: cst.BaseDictElement) -> cst.Arg:
    if isinstance(element, cst.StarredDictElement):
        return cst.Arg(element.value, star="**", comma=element.comma)
    key = element.key if isinstance(element, cst.DictElement) else None
    name = key.evaluated_value if isinstance(key, cst.SimpleString) else None
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise UnsafeError("a key of its `kwargs` is no literal name")
    equal = cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))
    return _checked(cst.Arg(element.value, keyword=cst.Name(name), equal=equal, comma=element.comma))


def _options(options: dict[str, cst.BaseExpression], module: cst.Module) -> cst.Dict:
    quote = "'" if module.code.count("'") > module.code.count('"') else '"'
    return cst.Dict(
        [cst.DictElement(cst.SimpleString(f"{quote}{name}{quote}"), value) for name, value in options.items()]
    )


def _comment_of(options: dict[str, cst.BaseExpression], publishing: Publishing) -> cst.BaseParenthesizableWhitespace:
    """The comment behind an option. If there are several, they cannot all go behind the dict of options."""
    for argument in publishing.args:
        if argument.value in options.values():
            found = _with_comment_of(argument, cst.ParenthesizedWhitespace())
            if found.first_line.comment:
                return found
    return cst.SimpleWhitespace("")


def _laid_out(
    function: cst.BaseExpression, args: Sequence[cst.Arg], publishing: Publishing, module: cst.Module
) -> cst.Call:
    """A call with each argument on a line of its own, if they were on several lines."""
    code = "".join(module.code_for_node(argument) for argument in publishing.args)
    layout = publishing.layout
    if "\n" not in code and not (layout is not None and _is_broken(layout.whitespace_before_args)):
        return cst.Call(function, _in_line(args))
    indent = cst.ParenthesizedWhitespace(indent=True, last_line=cst.SimpleWhitespace(module.default_indent))
    end = cst.ParenthesizedWhitespace(indent=True)
    shift = _Shift(_depth(publishing.args) - len(module.default_indent))
    lines = [
        argument.with_changes(
            value=argument.value.visit(shift),
            comma=cst.Comma(whitespace_after=_with_comment_of(argument, indent)),
            whitespace_after_arg=cst.SimpleWhitespace(""),
        )
        for argument in args
    ]
    after = _with_comment_of(args[-1], end)
    if isinstance(publishing.args[-1].comma, cst.Comma):
        lines[-1] = lines[-1].with_changes(comma=cst.Comma(whitespace_after=after))
    else:
        lines[-1] = lines[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT, whitespace_after_arg=after)
    return cst.Call(function, lines, whitespace_before_args=indent)


def _with_comment_of(argument: cst.Arg, whitespace: cst.ParenthesizedWhitespace) -> cst.ParenthesizedWhitespace:
    """Whitespace that begins with the comments behind an argument."""
    for place in (argument.whitespace_after_arg, getattr(argument.comma, "whitespace_after", None)):
        if isinstance(place, cst.ParenthesizedWhitespace) and comments(place):
            lines = [line.with_changes(whitespace=whitespace.last_line) for line in place.empty_lines if line.comment]
            return whitespace.with_changes(first_line=place.first_line, empty_lines=lines)
    return whitespace


def _depth(args: Sequence[cst.Arg]) -> int:
    """How far the lines of arguments were indented: those in a broken literal, or those of the call."""
    for argument in args:
        match argument.value:
            case cst.Dict(lbrace=cst.LeftCurlyBrace(whitespace_after=cst.ParenthesizedWhitespace(last_line=line))):
                return len(line.value)
            case cst.List(lbracket=cst.LeftSquareBracket(whitespace_after=cst.ParenthesizedWhitespace(last_line=line))):
                return len(line.value)
    for argument in args:
        place = argument.comma.whitespace_after if isinstance(argument.comma, cst.Comma) else None
        if isinstance(place, cst.ParenthesizedWhitespace) and place.last_line.value:
            return len(place.last_line.value)
    return 0


class _Shift(cst.CSTTransformer):
    """Moves the lines inside of a value to the left."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._columns = max(columns, 0)

    def leave_ParenthesizedWhitespace(
        self, original_node: cst.ParenthesizedWhitespace, updated_node: cst.ParenthesizedWhitespace
    ) -> cst.ParenthesizedWhitespace:
        line = updated_node.last_line
        return updated_node.with_changes(last_line=line.with_changes(value=line.value[self._columns :]))


def _in_line(args: Sequence[cst.Arg]) -> list[cst.Arg]:
    comma = cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
    return [*(argument.with_changes(comma=comma) for argument in args[:-1]), _last(args[-1])]


def _last(argument: cst.Arg) -> cst.Arg:
    return argument.with_changes(comma=cst.MaybeSentinel.DEFAULT)


def _bare(argument: cst.Arg) -> cst.Arg:
    return argument.with_changes(whitespace_after_arg=cst.SimpleWhitespace(""))


def _without_parentheses(receiver: cst.BaseExpression) -> cst.BaseExpression:
    """`(a.s() | b.s())` as an argument."""
    if isinstance(receiver, (cst.Tuple, cst.GeneratorExp, cst.NamedExpr, cst.Yield)) or not receiver.lpar:
        return receiver
    # Within the parentheses of the call, lines may break as well. Comments count for more than looks.
    if comments(receiver) != comments(receiver.with_changes(lpar=[], rpar=[])):
        return receiver
    return receiver.with_changes(lpar=[], rpar=[])


def _is_broken(whitespace: cst.BaseParenthesizableWhitespace) -> bool:
    return isinstance(whitespace, cst.ParenthesizedWhitespace)


def comments(node: cst.CSTNode) -> Counter[str]:
    """The comments in a node."""
    return Counter(comment.value for comment in m.findall(node, m.Comment()) if isinstance(comment, cst.Comment))
