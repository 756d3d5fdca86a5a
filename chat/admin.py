"""The chat rooms in Django's admin: to find what was said, and to take it out.

What goes on in a room is not changed here: pages that are open would not be told of it, and they count on the numbers.
Messages can be deleted. They are gone from a page when it is loaded anew, and a room without any is not listed.
"""

from django.contrib import admin

from chat.models import Message, ReadMark, Room


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
        # Its numbers would begin anew, and pages that are open take what has a number that they know for shown.
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
