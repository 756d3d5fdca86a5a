"""The chat rooms in Django's admin: staff find messages here, and delete them.

Messages cannot be changed: open pages would not get the change, and they depend on the numbers. A deleted message
disappears from a page when the page is reloaded, and a room without messages is not listed.
"""

from django.contrib import admin

from chat.models import Message, ReadMark, Room, Task


class LookOnly(admin.ModelAdmin):
    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False


@admin.register(Room)
class RoomAdmin(LookOnly):
    list_display = ["slug", "last_number", "created_at"]
    search_fields = ["slug"]
    date_hierarchy = "created_at"
    fields = ["slug", "created_at", "last_number"]

    def has_delete_permission(self, request, obj=None):
        # A new room with this name would start its numbers anew, and open pages ignore numbers that they know.
        return False

    def view_on_site(self, room):
        return room.get_absolute_url()


@admin.register(Message)
class MessageAdmin(LookOnly):
    list_display = ["room", "number", "author", "beginning", "sent_at"]
    list_display_links = ["number"]
    list_filter = ["sent_at", ("room", admin.RelatedOnlyFieldListFilter)]
    list_select_related = ["room", "author"]
    search_fields = ["text", "author__username", "room__slug"]
    search_help_text = "Words of the text, a name or a room"
    date_hierarchy = "sent_at"
    ordering = ["-sent_at", "-pk"]
    fields = ["room", "number", "author", "text", "sent_at"]
    show_full_result_count = False

    @admin.display(description="text")
    def beginning(self, message):
        return message.text if len(message.text) <= 80 else f"{message.text[:79]}…"


@admin.register(ReadMark)
class ReadMarkAdmin(LookOnly):
    list_display = ["user", "room", "number"]
    list_select_related = ["user", "room"]
    search_fields = ["user__username", "room__slug"]
    fields = ["user", "room", "number"]


@admin.register(Task)
class TaskAdmin(admin.ModelAdmin):
    """Open pages show what is changed here at once, because the model publishes it."""

    list_display = ["text", "done", "author"]
    list_editable = ["done"]
    list_filter = ["done"]
    list_select_related = ["author"]
    search_fields = ["text", "author__username"]
    raw_id_fields = ["author"]
