"""The outbox in Django's admin: to look at, and to retry or discard what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.text import Truncator

from airlock.integrations.outbox import _operations
from airlock.integrations.outbox._display import Overview, readable
from airlock.integrations.outbox._states import FREE, IN_FLIGHT, STATES, state
from airlock.integrations.outbox.models import Entry, InboxEntry, PausedTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model, QuerySet
    from django.http import HttpRequest

    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin

#: Entries of one statement: databases take a limited number of parameters.
_BATCH = 1000
#: What the page of an entry shows to everybody who may see it.
_FIELDS = ("task", "id", "state", "created", "due", "attempts", "error", "held", "lease", "version")
#: How many entries are named before they are discarded.
_NAMED = 10


class _ReadOnly(_ModelAdmin):
    """Shows rows, and changes nothing."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class _StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name.capitalize()) for name in sorted([*STATES, IN_FLIGHT])]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


@admin.register(Entry)
class EntryAdmin(_ReadOnly):
    """Entries, with how they are above the list."""

    change_list_template = "admin/airlock_outbox/entry/change_list.html"
    list_display = ("state", "task", "created", "due", "attempts", "short_error", "id")
    list_display_links = ("task", "id")
    list_filter = (_StateFilter, ("task", admin.AllValuesFieldListFilter))
    search_fields = ("task",)
    search_help_text = "Part of a task's name, or the whole id of an entry."
    show_full_result_count = False  # a second count of a table that may be large
    actions = ("retry", "discard")

    class Media:
        css: ClassVar = {"all": ["airlock_outbox/admin.css"]}

    # -- Permissions ---------------------------------------------------------------------------------------------------

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """For who may do something about them, too."""
        return (
            super().has_view_permission(request, obj)
            or self.has_retry_permission(request)
            or self.has_discard_permission(request)
        )

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Whether one may retry entries. Nobody may edit them."""
        return _may(request, "change_entry")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Whether one may discard entries."""
        return _may(request, "delete_entry")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.get_fields(request, obj)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        may_view_payload = _may(request, "view_payload")
        return [*_FIELDS, *(["readable_payload"] if may_view_payload else [])]

    # -- The list ------------------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).annotate(state=state())

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        try:
            return queryset.filter(id=UUID(search_term.strip())), False
        except ValueError:
            return super().get_search_results(request, queryset, search_term)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        overview = Overview(self.get_queryset(request).db)
        return super().changelist_view(request, {"overview": overview, **(extra_context or {})})

    @admin.display(description="state", ordering="state")
    def state(self, entry: Any) -> str:
        """What becomes of it."""
        return str(entry.state)

    @admin.display(description="error", ordering="error")
    def short_error(self, entry: Entry) -> str:
        """Its error, as far as there is room."""
        return Truncator(entry.error).chars(80)

    @admin.display(description="payload")
    def readable_payload(self, entry: Entry) -> str:
        """What it dispatches."""
        text, problem = readable(entry)
        note = format_html('<p class="errornote">{}</p>', problem) if problem else ""
        return format_html('{}<pre class="airlock-payload">{}</pre>', note, text)

    # -- Actions -------------------------------------------------------------------------------------------------------

    @admin.action(description="Retry selected entries that are parked or waiting", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Have a relay dispatch them now."""
        count = _for_each_batch(_operations.retry, queryset)
        if count:
            self.message_user(request, f"{_entries(count)} will be dispatched soon.", messages.SUCCESS)
        else:
            self.message_user(request, "None of them is parked, or waits to be retried.", messages.WARNING)

    @admin.action(description="Discard selected entries", permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: QuerySet[Any]) -> TemplateResponse | None:
        """Delete them, after asking."""
        free = queryset.filter(FREE)
        if request.POST.get("confirmed"):
            count = _for_each_batch(_operations.discard, free)
            self.message_user(request, f"{_entries(count)} discarded.", messages.SUCCESS)
            return None
        count, busy = free.count(), queryset.exclude(FREE).count()
        if not count:
            self.message_user(
                request, "All of them are held or in flight, and cannot be discarded now.", messages.ERROR
            )
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": "Discard entries",
            "opts": self.opts,
            "question": f"{_entries(count)} will never be dispatched.",
            "busy": busy,
            "first": free[:_NAMED],
            "more": max(0, count - _NAMED),
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "checkbox_name": ACTION_CHECKBOX_NAME,
            "select_across": request.POST.get("select_across", "0"),
        }
        return TemplateResponse(request, "admin/airlock_outbox/entry/discard.html", context)


@admin.register(InboxEntry)
class InboxEntryAdmin(_ReadOnly):
    """Runs that were effective once."""

    list_display = ("id", "created")
    search_fields = ("=id",)
    show_full_result_count = False


@admin.register(PausedTask)
class PausedTaskAdmin(_ReadOnly):
    """Tasks that are paused. `manage.py airlock_outbox` pauses and resumes them."""

    list_display = ("task", "since")


def _may(request: HttpRequest, permission: str) -> bool:
    user: Any = request.user  # has permissions, as it is a member of the staff
    return bool(user.has_perm(f"airlock_outbox.{permission}"))


def _for_each_batch(operation: Callable[[QuerySet[Entry]], int], queryset: QuerySet[Any]) -> int:
    """Do something about entries. As a filter may ask for what that changes, it is done by their ids."""
    chosen = list(queryset.values_list("id", flat=True))
    batches = (chosen[begin : begin + _BATCH] for begin in range(0, len(chosen), _BATCH))
    return sum(operation(Entry.objects.using(queryset.db).filter(id__in=batch)) for batch in batches)


def _entries(count: int) -> str:
    return f"{count} {'entry' if count == 1 else 'entries'}"
